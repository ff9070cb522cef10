package control

import (
	"context"
	"slices"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
)

// movable says that a machine is where a plan thought it is, and free to be moved.
func movable(m fleet.Machine, from fleet.WorkerID) bool {
	return m.Owner == "" && m.Placement != nil && m.Placement.Worker == from && m.Desired == fleet.WantStarted && m.State != fleet.MachineStopping
}

// startMove records a move with its target reserved, and, where it is free, the network's lock: one
// transaction. The machine's next generation is given out, so that nothing older can follow it to the target.
func (c *Control) startMove(ctx context.Context, m row[fleet.Machine], mv fleet.Move) (fleet.Move, error) {
	now := c.now()
	mv.ID, mv.Machine, mv.Network = fleet.MoveID(c.deps.IDs.ULID(now)), m.val.ID, m.val.Network
	mv.From, mv.FromGen, mv.ToGen = m.val.Placement.Worker, m.val.Placement.Generation, m.val.Generation+1
	mv.Instance, mv.Attempt, mv.StartedAt = fleet.InstanceID(c.deps.IDs.ULID(now)), 1, now
	if v := c.see(m.val).VM; v != nil && v.Generation == mv.FromGen {
		mv.WasUnhealthy = !v.Healthy()
	}
	mv.Step = fleet.StepReserved
	mv.Steps = []fleet.StepRecord{{Step: fleet.StepPlanned, At: now}, {Step: fleet.StepReserved, At: now, Note: "on " + string(mv.To)}}
	t := c.begin()
	if slot := c.freeSlot(mv.Network); slot != "" {
		t.put(slot, 0, mv.ID)
		mv.Step = fleet.StepLocked
		mv.Steps = append(mv.Steps, fleet.StepRecord{Step: fleet.StepLocked, At: now})
	}
	next := m.val
	next.Owner, next.Generation = moveOwner(mv.ID), mv.ToGen
	t.machine(m, next)
	t.expectWorker(mv.To)
	t.hold(mv.To, m.val.ID, fleet.Allocated{Resources: m.val.Config.Resources, Move: mv.ID})
	t.put(keyMove(mv.ID), 0, mv)
	return mv, t.commit(ctx)
}

// freeSlot returns the key of a free slot of a network's lock; "" if as many moves as may hold it do.
func (c *Control) freeSlot(network fleet.NetworkName) string {
	k := c.cfg.Policy.MovesPerNetwork
	if c.cache.heldLocks()[network] >= k {
		return ""
	}
	for slot := range k {
		key := keyLock(network, slot)
		if _, held := get(c.cache, c.cache.locks, key); !held {
			return key
		}
	}
	return ""
}

// lockNetwork takes the network's lock for a move that has its target.
func (c *Control) lockNetwork(ctx context.Context, r row[fleet.Move], m row[fleet.Machine]) error {
	slot := c.freeSlot(r.val.Network)
	if slot == "" {
		return nil
	}
	t, next := c.begin(), r.val
	t.put(slot, 0, next.ID)
	t.expect(keyMachine(m.val.ID), m.rev)
	c.step(&next, fleet.StepLocked, "")
	t.move(r, next)
	return t.commit(ctx)
}

// retarget reserves another target while the machine still runs on its source; why is nil where the present one
// takes no machines any more. Where there is no other, the move is undone: whoever wanted it plans again, and says
// what is missing.
func (c *Control) retarget(ctx context.Context, r row[fleet.Move], m row[fleet.Machine], why *fleet.Blocker) error {
	next := r.val
	if why != nil {
		next.Refused = append(slices.Clip(next.Refused), next.To)
	} else {
		why = &fleet.Blocker{Code: fleet.CodeTargetLost, Object: "worker/" + string(next.To),
			Detail: string(next.To) + " takes no machines any more", Remedy: "sluice machine migrate without --to"}
	}
	exclude := map[fleet.WorkerID]string{next.From: "the machine is on it"}
	for _, w := range next.Refused {
		exclude[w] = "no VM got ready on it"
	}
	to, blocked := c.placeCalm(needOf(m.val, exclude))
	switch {
	case next.Pinned, blocked != nil && why.Code == fleet.CodeNotReady:
		return c.undoMove(ctx, r, m, why)
	case blocked != nil:
		return c.undoMove(ctx, r, m, blocked)
	}
	t := c.begin()
	if next.To != "" {
		t.release(next.To, m.val.ID)
	}
	note := "on " + string(to) + ", because " + why.Detail
	next.To, next.ToGen, next.Instance = to, m.val.Generation+1, fleet.InstanceID(c.deps.IDs.ULID(c.now()))
	c.step(&next, fleet.StepReserved, note)
	if slot, _ := c.cache.lockOf(next); slot != "" {
		c.step(&next, fleet.StepLocked, "")
	}
	machine := m.val
	machine.Generation = next.ToGen
	t.machine(m, machine)
	t.expectWorker(to)
	t.hold(to, m.val.ID, fleet.Allocated{Resources: m.val.Config.Resources, Move: next.ID})
	t.move(r, next)
	return t.commit(ctx)
}

// stopSource begins the pause: from this commit on the source's assignment is to release the machine.
func (c *Control) stopSource(ctx context.Context, r row[fleet.Move], m row[fleet.Machine], in plan.MoveInput) error {
	t, next := c.begin(), r.val
	note := ""
	if !in.TargetPrepared() {
		note = "the target's VM has not read the disk's map yet"
	}
	c.step(&next, fleet.StepPrepared, note)
	c.step(&next, fleet.StepStopping, "")
	t.move(r, next)
	t.expect(keyMachine(m.val.ID), m.rev)
	t.expectWorker(next.To)
	return t.commit(ctx)
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
func (c *Control) block(ctx context.Context, r row[fleet.Move], why *fleet.Blocker) error {
	old := r.val.Blocker
	if why == nil && old == nil {
		return nil
	}
	next := r.val
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
	t := c.begin()
	t.move(r, next)
	return t.commit(ctx)
}

// orphaned ends a move whose machine is gone or owned by something else. Both happen only after the move has
// given the machine back; anything else is a view that is behind.
func (c *Control) orphaned(ctx context.Context, r row[fleet.Move], exists bool) error {
	if r.val.Step == fleet.StepUnlocked && !exists {
		return c.endDone(ctx, r)
	}
	return nil
}
