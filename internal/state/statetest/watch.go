package statetest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// testWatchDeliversInOrder watches while writing, and wants every change once, in order.
func testWatchDeliversInOrder(t *testing.T, h Harness) {
	const n = 300
	start := put(t, h.Store, "w/0", "first")
	var group errgroup.Group
	group.Go(func() error {
		for i := range n {
			if _, err := h.Store.Commit(timeout(t), state.Txn{
				Then: []state.Op{{Key: fmt.Sprint("w/", i%7), Value: fmt.Append(nil, i)}},
			}); err != nil {
				return err
			}
		}
		return nil
	})
	events := collect(t, h.Store, "w/", start, n)
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for i, ev := range events {
		if string(ev.Value) != fmt.Sprint(i) || ev.Key != fmt.Sprint("w/", i%7) || ev.Deleted {
			t.Fatalf("event %d is %+v", i, ev)
		}
	}
}

func testWatchResumes(t *testing.T, h Harness) {
	first := put(t, h.Store, "w/a", "1")
	second := put(t, h.Store, "w/a", "2")
	third := remove(t, h.Store, "w/a")
	events := collect(t, h.Store, "w/", first, 2)
	if events[0].ModRevision != second || string(events[0].Value) != "2" ||
		events[0].CreateRev != first {
		t.Errorf("first event %+v", events[0])
	}
	if !events[1].Deleted || events[1].Key != "w/a" || events[1].ModRevision != third ||
		len(events[1].Value) != 0 {
		t.Errorf("second event %+v", events[1])
	}
	if again := collect(t, h.Store, "w/", second, 1); !again[0].Deleted {
		t.Errorf("resumed at %+v", again[0])
	}
	// A watch that begins at the present waits for the future.
	put(t, h.Store, "w/b", "x")
	if next := collect(t, h.Store, "w/", third, 1); next[0].Key != "w/b" {
		t.Errorf("next event %+v", next[0])
	}
}

func testWatchKeepsPrefix(t *testing.T, h Harness) {
	start := put(t, h.Store, "v", "0")
	rev := commit(t, h.Store, state.Txn{Then: []state.Op{
		{Key: "v/1"}, {Key: "w/1"}, {Key: "w/2"}, {Key: "w0"}, {Key: "w"},
	}})
	put(t, h.Store, "x", "1")
	events := collect(t, h.Store, "w/", start, 2)
	if len(events) != 2 || events[0].Key != "w/1" || events[1].Key != "w/2" ||
		events[1].ModRevision != rev {
		t.Fatalf("events %+v", events)
	}
	if all := collect(t, h.Store, "", start, 6); len(all) != 6 {
		t.Fatalf("events of the whole store: %+v", all)
	}
}

func testWatchOfCompactedRevision(t *testing.T, h Harness) {
	first := put(t, h.Store, "w/a", "1")
	put(t, h.Store, "w/a", "2")
	put(t, h.Store, "w/a", "3")
	last := put(t, h.Store, "w/a", "4")
	if err := h.Compact(timeout(t), last); err != nil {
		t.Fatal(err)
	}
	err := h.Store.Watch(timeout(t), "w/", first, func(b state.Batch) bool {
		t.Errorf("a compacted watch delivered %+v", b)
		return true
	})
	wantKind(t, "watch from a compacted revision", err, errs.Conflict)
	kvs, rev, err := h.Store.List(timeout(t), "w/")
	if err != nil || len(kvs) != 1 || rev != last {
		t.Fatalf("list after compaction: %v at %d, %v", kvs, rev, err)
	}
	put(t, h.Store, "w/a", "5")
	if events := collect(t, h.Store, "w/", rev, 1); string(events[0].Value) != "5" {
		t.Fatalf("after the list: %+v", events)
	}
}

// testWatchSurvivesCompaction compacts behind a watch that is up to date.
func testWatchSurvivesCompaction(t *testing.T, h Harness) {
	start := put(t, h.Store, "w/a", "0")
	put(t, h.Store, "w/a", "1")
	var seen int
	err := h.Store.Watch(timeout(t), "w/", start, func(b state.Batch) bool {
		seen += len(b.Events)
		if seen == 5 {
			return false
		}
		rev, err := h.Store.Commit(timeout(t),
			state.Txn{Then: []state.Op{{Key: "w/a", Value: fmt.Append(nil, seen)}}})
		if err == nil {
			err = h.Compact(timeout(t), rev)
		}
		if err != nil {
			t.Errorf("write and compact: %v", err)
		}
		return err == nil
	})
	if err != nil || seen != 5 {
		t.Fatalf("%d events, %v", seen, err)
	}
}

func testWatchStops(t *testing.T, h Harness) {
	start := put(t, h.Store, "w/a", "1")
	ctx, cancel := context.WithCancel(timeout(t))
	var group errgroup.Group
	group.Go(func() error {
		return h.Store.Watch(ctx, "w/", start, func(state.Batch) bool {
			cancel() // while it runs: by then the watch is certainly in place
			return true
		})
	})
	put(t, h.Store, "w/a", "2")
	err := group.Wait()
	wantKind(t, "cancelled watch", err, errs.Unavailable)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the cancellation isn't in the chain of %v", err)
	}
}
