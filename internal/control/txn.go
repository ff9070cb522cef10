package control

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

// txn is one decision being written down: records changed against the revisions they were read at, and
// records that must not have changed meanwhile. A later change of the same record replaces the earlier.
// Not safe for concurrent use.
type txn struct {
	c     *Control
	conds map[string]int64
	ops   map[string]state.Op
	err   error
	ended []fleet.Move // by this transaction
	// behind: the records don't fit together, so that some must be older than others. Read all of them again.
	behind bool
}

func (c *Control) begin() *txn {
	return &txn{c: c, conds: map[string]int64{}, ops: map[string]state.Op{}}
}

// put writes a record that must still be at rev; 0 means that it must not exist.
func (t *txn) put(key string, rev int64, val any) {
	raw, err := json.Marshal(val)
	if err != nil {
		t.err = errs.Wrap(errs.Internal, err, "encode record %s", key)
		return
	}
	t.conds[key] = rev
	t.ops[key] = state.Op{Key: key, Value: raw}
}

// del deletes a record that must still be at rev.
func (t *txn) del(key string, rev int64) {
	t.conds[key] = rev
	t.ops[key] = state.Op{Key: key, Delete: true}
}

// expect requires that a record is still at rev.
func (t *txn) expect(key string, rev int64) { t.conds[key] = rev }

func (t *txn) machine(r row[fleet.Machine], m fleet.Machine) {
	m.UpdatedAt = t.c.now()
	t.put(keyMachine(m.ID), r.rev, m)
}

func (t *txn) move(r row[fleet.Move], mv fleet.Move) {
	t.put(keyMove(mv.ID), r.rev, mv)
	if mv.Step.Final() && !r.val.Step.Final() {
		t.ended = append(t.ended, mv)
	}
}

// hold books a share of a worker's capacity, and release gives it back. Both may be called for several
// machines and workers in one transaction. expectWorker is for whoever relies on the worker taking machines.
func (t *txn) hold(w fleet.WorkerID, machine fleet.MachineID, share fleet.Allocated) {
	t.allocation(w, func(holders map[fleet.MachineID]fleet.Allocated) { holders[machine] = share })
}

func (t *txn) release(w fleet.WorkerID, machine fleet.MachineID) {
	r := t.c.cache.allocation(w)
	if _, held := r.val.Holders[machine]; !held && t.ops[keyAllocation(w)].Key == "" {
		t.expect(keyAllocation(w), r.rev) // that it holds nothing is relied on too
		return
	}
	t.allocation(w, func(holders map[fleet.MachineID]fleet.Allocated) { delete(holders, machine) })
}

func (t *txn) allocation(w fleet.WorkerID, edit func(map[fleet.MachineID]fleet.Allocated)) {
	key := keyAllocation(w)
	r := t.c.cache.allocation(w)
	next := fleet.Allocation{Worker: w, Holders: map[fleet.MachineID]fleet.Allocated{}}
	if earlier, ok := t.ops[key]; ok {
		t.err = json.Unmarshal(earlier.Value, &next)
	} else {
		maps.Copy(next.Holders, r.val.Holders)
	}
	edit(next.Holders)
	t.put(key, r.rev, next)
}

func (t *txn) expectWorker(id fleet.WorkerID) {
	r, _ := t.c.cache.worker(id)
	t.expect(keyWorker(id), r.rev)
}

// errLostRace is the cause of a conflict that looking again resolves.
var errLostRace = errors.New("a record has changed meanwhile")

func isLostRace(err error) bool { return errors.Is(err, errLostRace) }

// commit applies the transaction. After success the cache has it; after a conflict, or where it is unknown
// what happened, the cache has the present state of every record that it names.
func (t *txn) commit(ctx context.Context) error {
	if t.err != nil {
		return t.err
	}
	if t.behind {
		if err := t.c.Refresh(ctx); err != nil {
			return err
		}
		return errs.Wrap(errs.Conflict, errLostRace, "commit")
	}
	var s state.Txn
	for _, key := range slices.Sorted(maps.Keys(t.conds)) {
		s.If = append(s.If, state.Cond{Key: key, ModRevision: t.conds[key]})
	}
	for _, key := range slices.Sorted(maps.Keys(t.ops)) {
		s.Then = append(s.Then, t.ops[key])
	}
	rev, err := t.c.deps.Store.Commit(ctx, s)
	if err != nil {
		t.reread(ctx, s)
		if errs.Is(err, errs.Conflict) {
			return errs.Wrap(errs.Conflict, errLostRace, "commit")
		}
		return err
	}
	events := make([]state.Event, 0, len(s.Then))
	for _, op := range s.Then {
		events = append(events, state.Event{KV: state.KV{Key: op.Key, Value: op.Value, ModRevision: rev}, Deleted: op.Delete})
	}
	err = t.c.learn(events...)
	t.c.broadcast()
	t.c.ended(t.ended)
	return err
}

// reread brings the transaction's records in the cache up to date. What it can't read stays old: the next
// transaction on it then conflicts, and tries again.
func (t *txn) reread(ctx context.Context, s state.Txn) {
	for _, cond := range s.If {
		kv, err := t.c.deps.Store.Get(ctx, cond.Key)
		switch {
		case err == nil:
			err = t.c.learn(state.Event{KV: kv})
		case errs.Is(err, errs.NotFound):
			if _, err = t.c.cache.missing(cond.Key); err == nil {
				t.c.touch(cond.Key)
			}
		}
		if err != nil {
			t.c.log.DebugContext(ctx, "record not read again", "key", cond.Key, "error", err)
		}
	}
	t.c.broadcast()
}
