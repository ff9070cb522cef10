// Package statetest is the conformance suite of state.Store: what etcd and its in-memory twin must
// both do.
//
// Invariants: each test gets a store of its own, empty; nothing in it relies on more than the
// contract of state.Store; every wait is bounded.
package statetest

import (
	"context"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// patience bounds every wait of the suite.
const patience = 15 * time.Second

// Harness is one store under test, and the levers that are not part of the interface.
type Harness struct {
	Store state.Store
	// Compact forgets the changes before a revision.
	Compact func(ctx context.Context, rev int64) error
	// Restore makes another store from a snapshot.
	Restore func(t *testing.T, snapshot []byte) state.Store
}

// Run runs the suite. open makes a store that it cleans up itself; it is called once for each test.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	for name, test := range map[string]func(*testing.T, Harness){
		"GetOfNothing":             testGetOfNothing,
		"CommitAndGet":             testCommitAndGet,
		"ConditionsHoldTogether":   testConditionsHoldTogether,
		"EmptyTransactions":        testEmptyTransactions,
		"InvalidTransactions":      testInvalidTransactions,
		"ExactlyOneWinner":         testExactlyOneWinner,
		"NoLostIncrement":          testNoLostIncrement,
		"ListIsOneRevision":        testListIsOneRevision,
		"ListOfMany":               testListOfMany,
		"BytesAreCopied":           testBytesAreCopied,
		"WatchDeliversInOrder":     testWatchDeliversInOrder,
		"WatchResumes":             testWatchResumes,
		"WatchKeepsPrefix":         testWatchKeepsPrefix,
		"WatchOfCompactedRevision": testWatchOfCompactedRevision,
		"WatchSurvivesCompaction":  testWatchSurvivesCompaction,
		"WatchStops":               testWatchStops,
		"CancelledContext":         testCancelledContext,
		"SnapshotRestores":         testSnapshotRestores,
		"Closed":                   testClosed,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// timeout is a context for one test.
func timeout(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func commit(t *testing.T, s state.Store, txn state.Txn) int64 {
	t.Helper()
	rev, err := s.Commit(timeout(t), txn)
	if err != nil {
		t.Fatalf("commit %+v: %v", txn, err)
	}
	return rev
}

func put(t *testing.T, s state.Store, key, value string) int64 {
	t.Helper()
	return commit(t, s, state.Txn{Then: []state.Op{{Key: key, Value: []byte(value)}}})
}

func remove(t *testing.T, s state.Store, key string) int64 {
	t.Helper()
	return commit(t, s, state.Txn{Then: []state.Op{{Key: key, Delete: true}}})
}

func wantKind(t *testing.T, what string, err error, kind errs.Kind) {
	t.Helper()
	if got := errs.KindOf(err); got != kind {
		t.Errorf("%s: error %v of kind %q, want kind %q", what, err, got, kind)
	}
}

func wantAbsent(t *testing.T, s state.Store, key string) {
	t.Helper()
	_, err := s.Get(timeout(t), key)
	wantKind(t, "get of "+key, err, errs.NotFound)
}

// collect watches until it has seen n events, and fails the test if that takes too long.
func collect(t *testing.T, s state.Store, prefix string, from int64, n int) []state.Event {
	t.Helper()
	var events []state.Event
	last := from
	err := s.Watch(timeout(t), prefix, from, func(b state.Batch) bool {
		if b.Revision <= last || len(b.Events) == 0 {
			t.Errorf("batch of revision %d with %d events after revision %d", b.Revision,
				len(b.Events), last)
		}
		last = b.Revision
		if newest := b.Events[len(b.Events)-1].ModRevision; newest != b.Revision {
			t.Errorf("batch of revision %d ends with an event of revision %d", b.Revision, newest)
		}
		events = append(events, b.Events...)
		return len(events) < n
	})
	if err != nil {
		t.Fatalf("watch of %q from %d: %d of %d events, then: %v", prefix, from,
			len(events), n, err)
	}
	return events
}
