package control

import (
	"context"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
)

// movable reports whether a machine is where a plan thought it is, and free to be moved.
func movable(m fleet.Machine, from fleet.WorkerID) bool {
	return m.Owner == "" && m.Placement != nil && m.Placement.Worker == from &&
		m.Desired == fleet.DesiredStarted && m.State != fleet.MachineStopping
}

// startMove records a move with its target reserved, and, where it is free, the network's lock: one
// transaction. The machine's next generation is given out, so that nothing older can follow it to
// the target.
func (c *Control) startMove(ctx context.Context, m records.Row[fleet.Machine],
	mv fleet.Move) (fleet.Move, error) {
	now := c.now()
	mv.ID, mv.Machine, mv.Network = fleet.MoveID(c.deps.IDs.ULID(now)), m.Val.ID, m.Val.Network
	mv.From, mv.FromGen, mv.ToGen = m.Val.Placement.Worker, m.Val.Placement.Generation,
		m.Val.Generation+1
	mv.Instance, mv.Attempt, mv.StartedAt = fleet.InstanceID(c.deps.IDs.ULID(now)), 1, now
	if v := c.sightOf(m.Val).VM; v != nil && v.Generation == mv.FromGen {
		mv.WasUnhealthy = !v.Healthy()
	}
	mv.Step = fleet.StepReserved
	mv.Steps = []fleet.StepRecord{{Step: fleet.StepPlanned, At: now},
		{Step: fleet.StepReserved, At: now, Note: "on " + string(mv.To)}}
	t := c.records.Begin()
	if slot, free := c.freeSlot(mv.Network); free {
		records.Set(t, slot, mv.ID)
		mv.Step = fleet.StepLocked
		mv.Steps = append(mv.Steps, fleet.StepRecord{Step: fleet.StepLocked, At: now})
	}
	next := m.Val
	next.Owner, next.Generation = moveOwner(mv.ID), mv.ToGen
	t.SetMachine(m, next)
	t.ExpectWorker(mv.To)
	t.Hold(mv.To, m.Val.ID, fleet.Allocated{Resources: m.Val.Config.Resources, Move: mv.ID})
	records.Set(t, c.records.Moves.New(mv.ID), mv)
	return mv, t.Commit(ctx)
}

// freeSlot returns a free slot of a network's lock; false if as many moves as may hold it do.
func (c *Control) freeSlot(network fleet.NetworkName) (records.Row[fleet.MoveID], bool) {
	k := c.cfg.Policy.MovesPerNetwork
	if c.records.HeldLocks(network) >= k {
		return records.Row[fleet.MoveID]{}, false
	}
	for n := range k {
		if slot, held := c.records.Locks.Get(records.Slot(network, n)); !held {
			return slot, true
		}
	}
	return records.Row[fleet.MoveID]{}, false
}

// lockNetwork takes the network's lock for a move that has its target.
func (c *Control) lockNetwork(ctx context.Context, r records.Row[fleet.Move],
	m records.Row[fleet.Machine]) error {
	slot, free := c.freeSlot(r.Val.Network)
	if !free {
		return nil
	}
	t, next := c.records.Begin(), r.Val
	records.Set(t, slot, next.ID)
	records.Expect(t, m)
	c.step(&next, fleet.StepLocked, "")
	t.SetMove(r, next)
	return t.Commit(ctx)
}

// retarget reserves another target while the machine still runs on its source.
func (c *Control) retarget(ctx context.Context, r records.Row[fleet.Move],
	m records.Row[fleet.Machine], other plan.Target) error {
	next, to := r.Val, other.To
	next.Refused = other.Refused
	t := c.records.Begin()
	if next.To != "" {
		t.Release(next.To, m.Val.ID)
	}
	note := "on " + string(to) + ", because " + other.Why.Detail
	next.To, next.ToGen, next.Instance = to, m.Val.Generation+1,
		fleet.InstanceID(c.deps.IDs.ULID(c.now()))
	c.step(&next, fleet.StepReserved, note)
	if _, held := c.records.LockOf(next); held {
		c.step(&next, fleet.StepLocked, "")
	}
	machine := m.Val
	machine.Generation = next.ToGen
	t.SetMachine(m, machine)
	t.ExpectWorker(to)
	t.Hold(to, m.Val.ID, fleet.Allocated{Resources: m.Val.Config.Resources, Move: next.ID})
	t.SetMove(r, next)
	return t.Commit(ctx)
}

// stopSource begins the pause: from this commit on the source's assignment is to release the
// machine.
func (c *Control) stopSource(ctx context.Context, r records.Row[fleet.Move],
	m records.Row[fleet.Machine], in plan.MoveInput) error {
	t, next := c.records.Begin(), r.Val
	note := ""
	if !in.TargetPrepared() {
		note = "the target's VM has not read the disk's map yet"
	}
	c.step(&next, fleet.StepPrepared, note)
	c.step(&next, fleet.StepStopping, "")
	t.SetMove(r, next)
	records.Expect(t, m)
	t.ExpectWorker(next.To)
	return t.Commit(ctx)
}

// step notes that a move has reached a step, and that nothing blocks it there.
func (c *Control) step(mv *fleet.Move, s fleet.Step, note string) {
	mv.Step, mv.Blocker = s, nil
	mv.Steps = appendStep(mv.Steps, fleet.StepRecord{Step: s, At: c.now(), Note: note})
	if s.Final() {
		mv.FinishedAt = c.now()
	}
}

// block notes why a move waits, or that nothing blocks it any more.
func (c *Control) block(ctx context.Context, r records.Row[fleet.Move], why *fleet.Blocker) error {
	old := r.Val.Blocker
	if why == nil && old == nil {
		return nil
	}
	next := r.Val
	if why != nil {
		b := *why
		b.Since = c.now()
		if old != nil && old.Code == b.Code && old.Object == b.Object {
			b.Since = old.Since
			if old.Detail == b.Detail {
				return nil
			}
		}
		why = &b
	}
	next.Blocker = why
	t := c.records.Begin()
	t.SetMove(r, next)
	return t.Commit(ctx)
}

// orphaned ends a move whose machine is gone or owned by something else. Both happen only after the
// move has given the machine back; anything else is a view that is behind.
func (c *Control) orphaned(ctx context.Context, r records.Row[fleet.Move], exists bool) error {
	if r.Val.Step == fleet.StepUnlocked && !exists {
		return c.endDone(ctx, r)
	}
	return nil
}
