package statetest

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/state"
)

// testListIsOneRevision moves a token between two keys while listing: a list that is the truth at
// one revision shows it exactly once.
func testListIsOneRevision(t *testing.T, h Harness) {
	put(t, h.Store, "hand/left", "token")
	put(t, h.Store, "other", "x")
	stop, cancel := context.WithCancel(timeout(t))
	defer cancel()
	var group errgroup.Group
	group.Go(func() error {
		from, to := "hand/left", "hand/right"
		for stop.Err() == nil {
			_, err := h.Store.Commit(timeout(t), state.Txn{Then: []state.Op{
				{Key: from, Delete: true}, {Key: to, Value: []byte("token")},
			}})
			if err != nil {
				return err
			}
			from, to = to, from
		}
		return nil
	})
	last := int64(0)
	for range 200 {
		kvs, rev, err := h.Store.List(timeout(t), "hand/")
		if err != nil || len(kvs) != 1 {
			t.Fatalf("list shows %d tokens: %v, %v", len(kvs), kvs, err)
		}
		if kvs[0].ModRevision > rev || rev < last {
			t.Fatalf("a key of revision %d in a list of revision %d, after one of %d",
				kvs[0].ModRevision, rev, last)
		}
		last = rev
	}
	cancel()
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

// testListOfMany lists more than any page, with neighbours on both sides of the prefix.
func testListOfMany(t *testing.T, h Harness) {
	const n = 2_600
	put(t, h.Store, "lis", "x")
	put(t, h.Store, "list0", "x")
	var rev int64
	for base := 0; base < n; base += 100 {
		var ops []state.Op
		for i := base; i < base+100; i++ {
			ops = append(ops, state.Op{Key: fmt.Sprintf("list/%05d", i), Value: fmt.Append(nil, i)})
		}
		rev = commit(t, h.Store, state.Txn{Then: ops})
	}
	kvs, got, err := h.Store.List(timeout(t), "list/")
	if err != nil || len(kvs) != n || got != rev {
		t.Fatalf("%d keys at revision %d, %v; want %d at %d", len(kvs), got, err, n, rev)
	}
	for i, kv := range kvs {
		if kv.Key != fmt.Sprintf("list/%05d", i) || !bytes.Equal(kv.Value, fmt.Append(nil, i)) {
			t.Fatalf("key %d is %s = %s", i, kv.Key, kv.Value)
		}
	}
	if all, _, err := h.Store.List(timeout(t), ""); err != nil || len(all) != n+2 {
		t.Fatalf("%d keys in all, %v", len(all), err)
	}
}

func testSnapshotRestores(t *testing.T, h Harness) {
	put(t, h.Store, "a", "1")
	kept := put(t, h.Store, "a", "2")
	put(t, h.Store, "b", "3")
	newest := remove(t, h.Store, "b")
	var snapshot bytes.Buffer
	if err := h.Store.Snapshot(timeout(t), &snapshot); err != nil {
		t.Fatal(err)
	}
	later := put(t, h.Store, "a", "later")

	s := h.Restore(t, snapshot.Bytes())
	kv, err := s.Get(timeout(t), "a")
	if err != nil || string(kv.Value) != "2" || kv.ModRevision != kept {
		t.Fatalf("restored %+v, %v; want revision %d", kv, err, kept)
	}
	wantAbsent(t, s, "b")
	if rev := put(t, s, "c", "4"); rev <= later {
		t.Fatalf("revision %d after the restore was handed out before it (%d, then %d)", rev,
			newest, later)
	}
	commit(t, s, state.Txn{If: []state.Cond{{Key: "a", ModRevision: kept}},
		Then: []state.Op{{Key: "a"}}})
}
