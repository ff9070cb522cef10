package records_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/state/memstate"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// told collects the changes that records told of.
type told struct {
	mu  sync.Mutex
	all []records.Change
	any chan struct{}
}

func (t *told) changed(changes []records.Change) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, changes...)
	close(t.any)
	t.any = make(chan struct{})
}

func newRecords(t *testing.T, store state.Store) (*records.Records, *told) {
	tell := &told{any: make(chan struct{})}
	r := records.New(records.Config{Store: store, Log: slog.New(slog.DiscardHandler), Now: time.Now,
		Retry: time.Millisecond, Changed: tell.changed})
	if err := r.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r, tell
}

// set writes one machine as a decision of its own.
func set(t *testing.T, r *records.Records, row records.Row[fleet.Machine], m fleet.Machine) error {
	t.Helper()
	tx := r.Begin()
	tx.SetMachine(row, m)
	return tx.Commit(t.Context())
}

// TestOwnChangesAreThereAtOnce: a transaction's changes are in the copy, and told of, when it
// returns.
func TestOwnChangesAreThereAtOnce(t *testing.T) {
	r, tell := newRecords(t, memstate.New(memstate.Config{}))
	web := fleet.Machine{ID: "m1", Name: "web", Network: "net", App: "app"}
	if err := set(t, r, r.Machines.New("m1"), web); err != nil {
		t.Fatal(err)
	}
	m, ok := r.Machines.Get("m1")
	if !ok || m.Val.Name != "web" || m.Rev == 0 {
		t.Errorf("the machine in the copy: %+v, %v", m, ok)
	}
	if !slices.Equal(tell.all, []records.Change{{Kind: records.Machines, ID: "m1"},
		{Kind: records.Usages, ID: "network/net"},
		{Kind: records.Usages, ID: "network/net/app"}}) {
		t.Errorf("told of %v", tell.all)
	}
	tx := r.Begin()
	records.Delete(tx, m)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok := r.Machines.Get("m1"); ok {
		t.Error("a deleted machine is in the copy")
	}
}

// TestLostRace: of two decisions on the same row one loses, changes nothing, and finds what is
// there.
func TestLostRace(t *testing.T) {
	store := memstate.New(memstate.Config{})
	a, _ := newRecords(t, store)
	if err := set(t, a, a.Machines.New("m1"), fleet.Machine{ID: "m1", Name: "first"}); err != nil {
		t.Fatal(err)
	}
	b, _ := newRecords(t, store)
	row, _ := b.Machines.Get("m1")
	old, _ := a.Machines.Get("m1")
	if err := set(t, b, row, fleet.Machine{ID: "m1", Name: "second"}); err != nil {
		t.Fatal(err)
	}
	err := set(t, a, old, fleet.Machine{ID: "m1", Name: "late"})
	if !records.IsLostRace(err) || !errs.Is(err, errs.Conflict) {
		t.Fatalf("a decision on an old row: %v", err)
	}
	if m, _ := a.Machines.Get("m1"); m.Val.Name != "second" {
		t.Errorf("the loser's copy has %q", m.Val.Name)
	}
	// One that relies on a record that is gone finds that out, too.
	gone, _ := b.Machines.Get("m1")
	tx := b.Begin()
	records.Delete(tx, gone)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	relied, _ := a.Machines.Get("m1")
	tx = a.Begin()
	records.Expect(tx, relied)
	records.Set(tx, a.Images.New("base"), fleet.Image{Name: "base"})
	if err := tx.Commit(t.Context()); !records.IsLostRace(err) {
		t.Fatalf("a decision on a record that is gone: %v", err)
	}
	if _, ok := a.Machines.Get("m1"); ok || a.Images.Len() != 0 {
		t.Error("the copy has what is gone, or what was not committed")
	}
}

// TestEveryKindComesAndGoes: another copy learns of each kind of record by reading, and of its end.
func TestEveryKindComesAndGoes(t *testing.T) {
	store := memstate.New(memstate.Config{})
	r, _ := newRecords(t, store)
	tx := r.Begin()
	tx.SetMachine(r.Machines.New("m1"),
		fleet.Machine{ID: "m1", Placement: &fleet.Placement{Worker: "w1"}})
	web := fleet.Machine{Network: "net", App: "app", Name: "web"}
	records.Set(tx, r.FullNames.New(records.FullName(web)), fleet.MachineID("m1"))
	records.Set(tx, r.Networks.New("net"), fleet.Network{Name: "net"})
	records.Set(tx, r.Workers.New("w1"), fleet.Worker{ID: "w1"})
	records.Set(tx, r.Allocations.New("w1"), fleet.Allocation{Worker: "w1"})
	records.Set(tx, r.Moves.New("v1"),
		fleet.Move{ID: "v1", Machine: "m1", Drain: "d1", Step: fleet.StepLocked})
	records.Set(tx, r.Drains.New("d1"), fleet.Drain{ID: "d1"})
	records.Set(tx, r.Images.New("base"), fleet.Image{Name: "base"})
	records.Set(tx, r.Locks.New(records.Slot("net", 0)), fleet.MoveID("v1"))
	records.Set(tx, r.Tokens.New("t1"), fleet.Token{ID: "t1"})
	tx.RememberLost(fleet.Machine{ID: "m0"}, "w1")
	records.Set(tx, r.Counters(), records.Counters{Network: 1})
	records.Set(tx, r.Quotas.New("default"), fleet.Quota{Limits: fleet.Amounts{"machines": 1}})
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	count := func(r *records.Records) []int {
		n := 0
		if r.Counters().Rev != 0 {
			n = 1
		}
		return []int{r.Machines.Len(), r.FullNames.Len(), r.Networks.Len(), r.Workers.Len(),
			r.Allocations.Len(), r.Moves.Len(), r.Drains.Len(), r.Images.Len(), r.Locks.Len(),
			r.Tombstones.Len(), r.Tokens.Len(), r.Quotas.Len(), r.Usage.Len(), n,
			len(r.PlacedOn("w1")), len(r.ActiveMoves("m1")),
			len(r.DrainMoves("d1")),
			r.HeldLocks("net"), len(r.Unsettled())}
	}
	other, _ := newRecords(t, store)
	if got := count(other); slices.Min(got) != 1 || slices.Max(got) != 1 {
		t.Errorf("a copy of one record of each kind has %v", got)
	}
	wipe(t, store)
	if err := other.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := count(other); slices.Max(got) != 0 {
		t.Errorf("a copy of nothing has %v", got)
	}
}

func wipe(t *testing.T, store state.Store) {
	t.Helper()
	kvs, _, err := store.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	var txn state.Txn
	for _, kv := range kvs {
		txn.Then = append(txn.Then, state.Op{Key: kv.Key, Delete: true})
	}
	if _, err := store.Commit(t.Context(), txn); err != nil {
		t.Fatal(err)
	}
}

// TestFollowLearnsWhatOthersWrite, and ends for a record that can't be read, which it says once.
func TestFollowLearnsWhatOthersWrite(t *testing.T) {
	store := memstate.New(memstate.Config{})
	writer, _ := newRecords(t, store)
	reader, tell := newRecords(t, store)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- reader.Follow(ctx) }()
	if err := set(t, writer, writer.Machines.New("m1"), fleet.Machine{ID: "m1"}); err != nil {
		t.Fatal(err)
	}
	for {
		tell.mu.Lock()
		next := tell.any
		tell.mu.Unlock()
		if _, ok := reader.Machines.Get("m1"); ok {
			break
		}
		select {
		case <-next:
		case <-ctx.Done():
			t.Fatal("what another has written is not in the copy")
		}
	}
	newer := state.Op{Key: "fleet/machines/m2", Value: []byte(`{"id":"m2","of_a_newer_release":1}`)}
	if _, err := store.Commit(ctx, state.Txn{Then: []state.Op{newer}}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if !errs.Is(err, errs.Corrupt) {
			t.Errorf("following ended with %v", err)
		}
	case <-ctx.Done():
		t.Error("it goes on after a record that it can't read")
	}
}
