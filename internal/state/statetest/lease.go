package statetest

import (
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func grant(t *testing.T, s state.Store, ttl time.Duration) state.LeaseID {
	t.Helper()
	id, err := s.Grant(timeout(t), ttl)
	if err != nil || id == 0 {
		t.Fatalf("grant: lease %d, %v", id, err)
	}
	return id
}

func testLeaseExpires(t *testing.T, h Harness) {
	id := grant(t, h.Store, time.Second)
	rev := commit(t, h.Store, state.Txn{Then: []state.Op{
		{Key: "l/a", Lease: id}, {Key: "l/b", Lease: id}, {Key: "l/c"},
	}})
	if h.Pass != nil {
		h.Pass(time.Second)
	}
	events := collect(t, h.Store, "l/", rev, 2)
	if len(events) != 2 || !events[0].Deleted || !events[1].Deleted ||
		events[0].ModRevision != events[1].ModRevision {
		t.Fatalf("the end of a lease is %+v, want both keys deleted in one revision", events)
	}
	kvs, _, err := h.Store.List(timeout(t), "l/")
	if err != nil || len(kvs) != 1 || kvs[0].Key != "l/c" {
		t.Fatalf("left: %+v, %v", kvs, err)
	}
	wantKind(t, "keep an ended lease alive", h.Store.KeepAlive(timeout(t), id), errs.NotFound)
	if err := h.Store.Revoke(timeout(t), id); err != nil {
		t.Errorf("revoke of an ended lease: %v", err)
	}
	_, err = h.Store.Commit(timeout(t), state.Txn{Then: []state.Op{{Key: "l/d", Lease: id}}})
	wantKind(t, "write under an ended lease", err, errs.NotFound)
}

// testLeaseKeptAlive renews one of two leases until the other has ended, which proves that time has
// passed.
func testLeaseKeptAlive(t *testing.T, h Harness) {
	kept, left := grant(t, h.Store, 2*time.Second), grant(t, h.Store, 2*time.Second)
	commit(t, h.Store, state.Txn{Then: []state.Op{{Key: "l/kept", Lease: kept},
		{Key: "l/left", Lease: left}}})
	deadline := time.Now().Add(patience)
	for {
		if err := h.Store.KeepAlive(timeout(t), kept); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Store.Get(timeout(t), "l/left"); errs.Is(err, errs.NotFound) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a lease that nobody renews doesn't end")
		}
		if h.Pass != nil {
			h.Pass(500 * time.Millisecond)
		} else {
			time.Sleep(100 * time.Millisecond) // the pace of renewals, not a guess
		}
	}
	if _, err := h.Store.Get(timeout(t), "l/kept"); err != nil {
		t.Fatalf("a renewed lease ended: %v", err)
	}
}

func testLeaseRevoked(t *testing.T, h Harness) {
	id := grant(t, h.Store, time.Minute)
	rev := commit(t, h.Store, state.Txn{Then: []state.Op{{Key: "l/a", Lease: id}}})
	for range 2 { // the second time says the same
		if err := h.Store.Revoke(timeout(t), id); err != nil {
			t.Fatal(err)
		}
	}
	wantAbsent(t, h.Store, "l/a")
	if events := collect(t, h.Store, "l/", rev, 1); !events[0].Deleted {
		t.Fatalf("event %+v", events[0])
	}
}

// testKeyLeavesLease rewrites a leased key without a lease, and under another: the first lease lets
// go.
func testKeyLeavesLease(t *testing.T, h Harness) {
	first, second := grant(t, h.Store, time.Minute), grant(t, h.Store, time.Minute)
	commit(t, h.Store, state.Txn{Then: []state.Op{{Key: "l/free", Lease: first},
		{Key: "l/moved", Lease: first}}})
	commit(t, h.Store, state.Txn{Then: []state.Op{{Key: "l/free"},
		{Key: "l/moved", Lease: second}}})
	if err := h.Store.Revoke(timeout(t), first); err != nil {
		t.Fatal(err)
	}
	if kvs, _, err := h.Store.List(timeout(t), "l/"); err != nil || len(kvs) != 2 {
		t.Fatalf("left after the first lease: %+v, %v", kvs, err)
	}
	if err := h.Store.Revoke(timeout(t), second); err != nil {
		t.Fatal(err)
	}
	if kvs, _, err := h.Store.List(timeout(t), "l/"); err != nil || len(kvs) != 1 ||
		kvs[0].Key != "l/free" {
		t.Fatalf("left after both: %+v, %v", kvs, err)
	}
}
