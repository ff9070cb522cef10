package statetest

import (
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func testGetOfNothing(t *testing.T, h Harness) {
	wantAbsent(t, h.Store, "nothing")
	kvs, rev, err := h.Store.List(timeout(t), "")
	if err != nil || len(kvs) != 0 || rev < 1 {
		t.Fatalf("list of an empty store: %v, revision %d, %v", kvs, rev, err)
	}
}

func testCommitAndGet(t *testing.T, h Harness) {
	first := commit(t, h.Store, state.Txn{
		If:   []state.Cond{{Key: "a"}},
		Then: []state.Op{{Key: "a", Value: []byte("1")}, {Key: "b"}},
	})
	second := commit(t, h.Store, state.Txn{
		If:   []state.Cond{{Key: "a", ModRevision: first}},
		Then: []state.Op{{Key: "a", Value: []byte("2")}, {Key: "b", Delete: true}},
	})
	if second <= first {
		t.Fatalf("revision %d after %d", second, first)
	}
	kv, err := h.Store.Get(timeout(t), "a")
	if err != nil || string(kv.Value) != "2" || kv.Key != "a" || kv.CreateRev != first ||
		kv.ModRevision != second {
		t.Fatalf("got %+v, %v", kv, err)
	}
	wantAbsent(t, h.Store, "b")
	again := put(t, h.Store, "b", "x")
	if kv, err := h.Store.Get(timeout(t), "b"); err != nil || kv.CreateRev != again {
		t.Fatalf("a key made anew keeps its old creation: %+v, %v", kv, err)
	}
}

func testConditionsHoldTogether(t *testing.T, h Harness) {
	rev := put(t, h.Store, "a", "1")
	for name, conds := range map[string][]state.Cond{
		"exists, wanted absent":  {{Key: "a"}},
		"absent, wanted present": {{Key: "b", ModRevision: rev}},
		"other revision":         {{Key: "a", ModRevision: rev + 1}},
		"one of two":             {{Key: "a", ModRevision: rev}, {Key: "b", ModRevision: 1}},
	} {
		_, err := h.Store.Commit(timeout(t),
			state.Txn{If: conds, Then: []state.Op{{Key: "a", Delete: true}, {Key: "c"}}})
		wantKind(t, name, err, errs.Conflict)
	}
	if kv, err := h.Store.Get(timeout(t), "a"); err != nil || kv.ModRevision != rev {
		t.Fatalf("a refused transaction changed %+v, %v", kv, err)
	}
	wantAbsent(t, h.Store, "c")
}

func testEmptyTransactions(t *testing.T, h Harness) {
	rev := put(t, h.Store, "a", "1")
	for name, txn := range map[string]state.Txn{
		"nothing at all":       {},
		"only a condition":     {If: []state.Cond{{Key: "a", ModRevision: rev}}},
		"delete of an absence": {Then: []state.Op{{Key: "gone", Delete: true}}},
	} {
		if got := commit(t, h.Store, txn); got != rev {
			t.Errorf("%s: revision %d, want the present one, %d", name, got, rev)
		}
	}
}

func testInvalidTransactions(t *testing.T, h Harness) {
	twice := []state.Op{{Key: "a"}, {Key: "a"}}
	long := make([]state.Op, state.MaxTxnOps+1)
	for i := range long {
		long[i].Key = strconv.Itoa(i)
	}
	for name, txn := range map[string]state.Txn{
		"key twice": {Then: twice}, "too long": {Then: long}, "empty key": {Then: []state.Op{{}}},
	} {
		_, err := h.Store.Commit(timeout(t), txn)
		wantKind(t, name, err, errs.Invalid)
	}
	commit(t, h.Store, state.Txn{Then: long[:state.MaxTxnOps]})
}

func testExactlyOneWinner(t *testing.T, h Harness) {
	ctx := timeout(t)
	for round := range 10 {
		key := fmt.Sprint("prize/", round)
		var winners, losers atomic.Int32
		var group errgroup.Group
		for racer := range 16 {
			group.Go(func() error {
				_, err := h.Store.Commit(ctx, state.Txn{
					If:   []state.Cond{{Key: key}},
					Then: []state.Op{{Key: key, Value: []byte(strconv.Itoa(racer))}},
				})
				switch errs.KindOf(err) {
				case "":
					winners.Add(1)
				case errs.Conflict:
					losers.Add(1)
				default:
					return err
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil || winners.Load() != 1 || losers.Load() != 15 {
			t.Fatalf("round %d: %d winners, %d losers, %v", round, winners.Load(),
				losers.Load(), err)
		}
	}
}

func testNoLostIncrement(t *testing.T, h Harness) {
	const racers, each = 4, 20
	ctx := timeout(t)
	put(t, h.Store, "n", "0")
	increment := func() error {
		for {
			kv, err := h.Store.Get(ctx, "n")
			if err != nil {
				return err
			}
			n, err := strconv.Atoi(string(kv.Value))
			if err != nil {
				return errors.New("not a number: " + string(kv.Value))
			}
			_, err = h.Store.Commit(ctx, state.Txn{
				If:   []state.Cond{{Key: "n", ModRevision: kv.ModRevision}},
				Then: []state.Op{{Key: "n", Value: []byte(strconv.Itoa(n + 1))}},
			})
			if !errs.Is(err, errs.Conflict) {
				return err
			}
		}
	}
	var group errgroup.Group
	for range racers {
		group.Go(func() error {
			for range each {
				if err := increment(); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if kv, err := h.Store.Get(ctx, "n"); err != nil ||
		string(kv.Value) != strconv.Itoa(racers*each) {
		t.Fatalf("n = %s, %v; want %d", kv.Value, err, racers*each)
	}
}

func testBytesAreCopied(t *testing.T, h Harness) {
	value := []byte("mine")
	commit(t, h.Store, state.Txn{Then: []state.Op{{Key: "a", Value: value}}})
	value[0] = 'M'
	kv, err := h.Store.Get(timeout(t), "a")
	if err != nil || string(kv.Value) != "mine" {
		t.Fatalf("the store kept the caller's slice: %q, %v", kv.Value, err)
	}
	kv.Value[0] = 'M'
	if kv, err = h.Store.Get(timeout(t), "a"); err != nil || string(kv.Value) != "mine" {
		t.Fatalf("the store gave its own slice away: %q, %v", kv.Value, err)
	}
}
