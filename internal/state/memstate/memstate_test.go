package memstate_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/state/memstate"
	"github.com/sluice-platform/sluice/internal/state/statetest"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func harness(s *memstate.Store) statetest.Harness {
	return statetest.Harness{
		Store:   s,
		Compact: func(_ context.Context, rev int64) error { s.Compact(rev); return nil },
		Restore: func(t *testing.T, snapshot []byte) state.Store {
			restored, err := memstate.Restore(memstate.Config{}, bytes.NewReader(snapshot))
			if err != nil {
				t.Fatal(err)
			}
			return restored
		},
	}
}

func TestConformance(t *testing.T) {
	statetest.Run(t, func(*testing.T) statetest.Harness {
		return harness(memstate.New(memstate.Config{}))
	})
}

func TestLostResponseHasHappenedAndLostRequestHasNot(t *testing.T) {
	fault := memstate.FaultNone
	s := memstate.New(memstate.Config{OnCommit: func(state.Txn) memstate.Fault { return fault }})
	for _, c := range []struct {
		fault memstate.Fault
		key   string
		there bool
	}{{memstate.FaultLoseRequest, "a", false}, {memstate.FaultLoseResponse, "b", true}} {
		fault = c.fault
		_, err := s.Commit(t.Context(), state.Txn{Then: []state.Op{{Key: c.key}}})
		if !errs.Is(err, errs.Unavailable) {
			t.Fatalf("commit of %s: %v", c.key, err)
		}
		if _, err := s.Get(t.Context(), c.key); (err == nil) != c.there {
			t.Errorf("key %s: %v", c.key, err)
		}
	}
}

func TestBrokenWatchResumesWithoutLoss(t *testing.T) {
	s := memstate.New(memstate.Config{})
	put := func(key string) { mustCommit(t, s, key) }
	put("a")
	var last int64
	err := s.Watch(t.Context(), "", 1, func(b state.Batch) bool {
		last = b.Revision
		s.BreakWatches()
		return true
	})
	if !errs.Is(err, errs.Unavailable) {
		t.Fatalf("broken watch: %v", err)
	}
	put("b")
	var key string
	err = s.Watch(t.Context(), "", last,
		func(b state.Batch) bool { key = b.Events[0].Key; return false })
	if err != nil || key != "b" {
		t.Fatalf("resumed at %q, %v", key, err)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	s := memstate.New(memstate.Config{History: 10})
	for range 50 {
		mustCommit(t, s, "a")
	}
	err := s.Watch(t.Context(), "", 1, func(state.Batch) bool { return false })
	if !errs.Is(err, errs.Conflict) {
		t.Fatalf("watch from the beginning: %v", err)
	}
	_, rev, err := s.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	var n int
	err = s.Watch(t.Context(), "", rev-10,
		func(b state.Batch) bool { n++; return b.Revision < rev })
	if err != nil || n != 10 {
		t.Fatalf("%d of the newest 10 revisions, %v", n, err)
	}
}

func TestRestoreRefusesForeignBytes(t *testing.T) {
	for _, snapshot := range []string{"", "{}", "nonsense", `{"Format":"sluice-memstate-1"}`} {
		if _, err := memstate.Restore(memstate.Config{},
			bytes.NewReader([]byte(snapshot))); !errs.Is(err, errs.Corrupt) {
			t.Errorf("restore of %q: %v", snapshot, err)
		}
	}
}

func mustCommit(t *testing.T, s state.Store, key string) {
	t.Helper()
	if _, err := s.Commit(t.Context(), state.Txn{Then: []state.Op{{Key: key}}}); err != nil {
		t.Fatal(err)
	}
}
