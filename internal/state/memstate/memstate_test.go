package memstate_test

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/state/memstate"
	"github.com/sluice-platform/sluice/internal/state/statetest"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// clock is a settable time.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func harness(s *memstate.Store, pass func(time.Duration)) statetest.Harness {
	return statetest.Harness{
		Store:   s,
		Compact: func(_ context.Context, rev int64) error { s.Compact(rev); return nil },
		Pass:    pass,
		Restore: func(t *testing.T, snapshot []byte) state.Store {
			restored, err := memstate.Restore(memstate.Config{}, bytes.NewReader(snapshot))
			if err != nil {
				t.Fatal(err)
			}
			return restored
		},
	}
}

func TestConformanceWithInjectedClock(t *testing.T) {
	statetest.Run(t, func(*testing.T) statetest.Harness {
		c := &clock{now: time.Unix(1_000_000, 0)}
		s := memstate.New(memstate.Config{Now: c.Now})
		return harness(s, func(d time.Duration) { c.pass(d); s.Tick() })
	})
}

func TestConformanceOnTheRealClock(t *testing.T) {
	statetest.Run(t, func(*testing.T) statetest.Harness {
		return harness(memstate.New(memstate.Config{}), nil)
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
	for _, snapshot := range []string{"", "{}", "nonsense",
		`{"Format":"sluice-memstate-1","Keys":[{"Lease":7}]}`} {
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

func TestWatchSeesLeaseEndWithoutAnotherCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstate.New(memstate.Config{})
		id, err := s.Grant(t.Context(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		rev, err := s.Commit(t.Context(), state.Txn{Then: []state.Op{{Key: "l", Lease: id}}})
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		err = s.Watch(t.Context(), "l", rev,
			func(b state.Batch) bool { return !b.Events[0].Deleted })
		if err != nil || time.Since(begin) != time.Hour {
			t.Fatalf("the key went after %s, %v", time.Since(begin), err)
		}
	})
}
