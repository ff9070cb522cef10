package records

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Txn is one decision being written down: records changed against the rows they were read as, and
// records that must not have changed meanwhile. A later change of the same record replaces the
// earlier. Not safe for concurrent use.
type Txn struct {
	r     *Records
	conds map[string]int64
	ops   map[string]state.Op
	err   error
	ended []fleet.Move // by this transaction
	// behind: the records don't fit together, so that some must be older than others. Commit reads
	// all of them again.
	behind bool
	// charges are what its records change in the use of scopes, by their keys, and used the records
	// of that use, by scopes' ids, as it has read them.
	charges map[string]charge
	used    map[string]Row[Usage]
}

// Begin returns an empty transaction.
func (r *Records) Begin() *Txn {
	return &Txn{r: r, conds: map[string]int64{}, ops: map[string]state.Op{},
		charges: map[string]charge{}, used: map[string]Row[Usage]{}}
}

// Len returns how many records the transaction writes.
func (t *Txn) Len() int { return len(t.ops) }

// Set writes a record that must still be as it was read: New's row if there must be none.
func Set[T any](t *Txn, r Row[T], val T) {
	raw, err := json.Marshal(val)
	if err != nil {
		t.err = errors.Join(t.err, errs.Wrap(errs.Internal, err, "encode record %s", r.key))
		return
	}
	t.conds[r.key] = r.Rev
	t.ops[r.key] = state.Op{Key: r.key, Value: raw}
	t.account(r.key, recordOf(r), val)
}

// Delete deletes a record that must still be as it was read.
func Delete[T any](t *Txn, r Row[T]) {
	t.conds[r.key] = r.Rev
	t.ops[r.key] = state.Op{Key: r.key, Delete: true}
	t.account(r.key, recordOf(r), nil)
}

// recordOf returns a row's record; nil if there is none.
func recordOf[T any](r Row[T]) any {
	if r.Rev == 0 {
		return nil
	}
	return r.Val
}

// Expect requires that a record is still as it was read.
func Expect[T any](t *Txn, r Row[T]) { t.conds[r.key] = r.Rev }

// SetMachine is Set, and notes the time.
func (t *Txn) SetMachine(r Row[fleet.Machine], m fleet.Machine) {
	m.UpdatedAt = t.r.cfg.Now()
	Set(t, r, m)
}

// SetMove is Set, and once it is durable tells Config.Ended of a move that ends with it.
func (t *Txn) SetMove(r Row[fleet.Move], mv fleet.Move) {
	Set(t, r, mv)
	if mv.Step.Final() && !r.Val.Step.Final() {
		t.ended = append(t.ended, mv)
	}
}

// ExpectWorker requires that a worker's record stays as it is. It is for whoever relies on the
// worker taking machines.
func (t *Txn) ExpectWorker(id fleet.WorkerID) {
	r, _ := t.r.Workers.Get(id)
	Expect(t, r)
}

// Hold books a share of a worker's capacity for a machine. Like Release it may be called for
// several machines and workers in one transaction.
func (t *Txn) Hold(w fleet.WorkerID, machine fleet.MachineID, share fleet.Allocated) {
	t.allocate(w, func(holders map[fleet.MachineID]fleet.Allocated) { holders[machine] = share })
}

// Release gives a machine's share of a worker's capacity back, if it has one.
func (t *Txn) Release(w fleet.WorkerID, machine fleet.MachineID) {
	r, _ := t.r.Allocations.Get(w)
	_, held := r.Val.Holders[machine]
	if _, edited := t.ops[r.key]; !held && !edited {
		Expect(t, r) // that it holds nothing is relied on too
		return
	}
	t.allocate(w, func(holders map[fleet.MachineID]fleet.Allocated) { delete(holders, machine) })
}

func (t *Txn) allocate(w fleet.WorkerID, edit func(map[fleet.MachineID]fleet.Allocated)) {
	r, _ := t.r.Allocations.Get(w)
	next := fleet.Allocation{Worker: w, Holders: map[fleet.MachineID]fleet.Allocated{}}
	if earlier, ok := t.ops[r.key]; ok {
		if err := json.Unmarshal(earlier.Value, &next); err != nil {
			t.err = errors.Join(t.err, errs.Wrap(errs.Internal, err, "decode record %s", r.key))
			return
		}
	} else {
		maps.Copy(next.Holders, r.Val.Holders)
	}
	edit(next.Holders)
	Set(t, r, next)
}

// Unlock gives back the network's lock, if the move has taken it.
func (t *Txn) Unlock(mv fleet.Move) {
	slot, held := t.r.LockOf(mv)
	switch {
	case held:
		Delete(t, slot)
	case !mv.Reached(fleet.StepLocked).IsZero():
		t.behind = true
	}
}

// RememberLost notes that a lost worker may still have a VM of a machine whose record is about to
// go.
func (t *Txn) RememberLost(m fleet.Machine, on fleet.WorkerID) {
	r, _ := t.r.Tombstones.Get(m.ID)
	Set(t, r, Tombstone{Machine: m.ID, Worker: on, Generation: m.Generation})
}

// errLostRace is the cause of a conflict that a new decision resolves.
var errLostRace = errors.New("a record has changed meanwhile")

// IsLostRace reports whether a transaction failed because a record has changed meanwhile. Decide
// again.
func IsLostRace(err error) bool { return errors.Is(err, errLostRace) }

// Commit applies the transaction. After success the copy has it; after a conflict, or where it is
// unknown what happened, the copy has the present state of every record that it names.
func (t *Txn) Commit(ctx context.Context) error {
	if t.err != nil {
		return t.err
	}
	if t.behind {
		if err := t.r.Load(ctx); err != nil {
			return err
		}
		return errs.Wrap(errs.Conflict, errLostRace, "commit")
	}
	if t.writeUsage(); t.err != nil {
		return t.err
	}
	var s state.Txn
	for _, key := range slices.Sorted(maps.Keys(t.conds)) {
		s.If = append(s.If, state.Cond{Key: key, ModRevision: t.conds[key]})
	}
	for _, key := range slices.Sorted(maps.Keys(t.ops)) {
		s.Then = append(s.Then, t.ops[key])
	}
	rev, err := t.r.cfg.Store.Commit(ctx, s)
	if err != nil {
		t.reread(ctx, s)
		if errs.Is(err, errs.Conflict) {
			return errs.Wrap(errs.Conflict, errLostRace, "commit")
		}
		return err
	}
	events := make([]state.Event, 0, len(s.Then))
	for _, op := range s.Then {
		kv := state.KV{Key: op.Key, Value: op.Value, ModRevision: rev}
		events = append(events, state.Event{KV: kv, Deleted: op.Delete})
	}
	err = t.r.apply(events...)
	if len(t.ended) > 0 {
		t.r.cfg.Ended(t.ended)
	}
	return err
}

// reread brings the transaction's records in the copy up to date. What it can't read stays old: the
// next transaction on it then conflicts, and tries again.
func (t *Txn) reread(ctx context.Context, s state.Txn) {
	for _, cond := range s.If {
		kv, err := t.r.cfg.Store.Get(ctx, cond.Key)
		switch {
		case err == nil:
			err = t.r.apply(state.Event{KV: kv})
		case errs.Is(err, errs.NotFound):
			err = t.r.missing(cond.Key)
		}
		if err != nil {
			t.r.cfg.Log.DebugContext(ctx, "record not read again", "key", cond.Key, "error", err)
		}
	}
}
