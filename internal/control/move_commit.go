package control

import (
	"context"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
)

// commitMove is the point of no return. It is one small transaction, because the machine stands still
// meanwhile: the source's share and the events wait for finishMove.
func (c *Control) commitMove(ctx context.Context, r row[fleet.Move], m row[fleet.Machine], in plan.MoveInput) error {
	next := r.val
	c.noteReleased(&next, in)
	c.step(&next, fleet.StepCommitted, "")
	return c.commitTo(ctx, r, m, next, nil)
}

// noteReleased notes by which proof the source doesn't write any more.
func (c *Control) noteReleased(mv *fleet.Move, in plan.MoveInput) {
	proof, gone := in.Source.Left(mv.FromGen, c.cfg.Policy, c.now())
	note := ""
	if !gone {
		proof = fleet.ProofStorage
		note = string(mv.From) + " is down"
	} else if why := unclean(in.Source, mv.FromGen); why != "" {
		note = "not cleanly: " + why + "; " + whatIsLost
	}
	mv.Proof = proof
	c.step(mv, fleet.StepReleased, note)
}

// commitTo places the machine on the move's target under the move's new generation.
func (c *Control) commitTo(ctx context.Context, r row[fleet.Move], m row[fleet.Machine], mv fleet.Move, more func(*txn)) error {
	w, _ := c.cache.worker(mv.To)
	t, machine := c.begin(), m.val
	machine.Generation = max(machine.Generation, mv.ToGen)
	machine.Placement = c.placementOn(m.val, w.val, mv.ToGen, mv.Instance)
	machine.State, machine.Reason = fleet.MachineMoving, ""
	t.machine(m, machine)
	t.expectWorker(mv.To)
	t.move(r, mv)
	if more != nil {
		more(t)
	}
	return t.commit(ctx)
}

// nextTarget gives up a target: for another one, or for the source, or for good.
func (c *Control) nextTarget(ctx context.Context, r row[fleet.Move], m row[fleet.Machine], in plan.MoveInput, why *fleet.Blocker) error {
	committed := in.Move.Step.PastCommit()
	exclude := map[fleet.WorkerID]string{in.Move.From: "the machine comes from it", in.Move.To: why.Detail}
	to, blocked := c.placeCalm(needOf(m.val, exclude))
	spent := in.Move.Pinned || committed && in.Move.Attempt >= c.cfg.MaxAttempts
	if to == "" || spent {
		switch {
		case in.Source.Health == plan.Alive:
			return c.putBack(ctx, r, m, in, why)
		case !committed:
			return c.block(ctx, r, blocked)
		case in.TargetOpen && in.Target.Health == plan.Alive && !spent:
			to = in.Move.To
		case committed && (spent || in.Target.Health != plan.Down):
			return c.giveUp(ctx, r, m, why)
		default:
			return c.block(ctx, r, blocked)
		}
	}
	next := r.val
	if !committed {
		c.noteReleased(&next, in)
	} else {
		next.Attempt++
	}
	next.To, next.ToGen, next.Instance = to, m.val.Generation+1, fleet.InstanceID(c.deps.IDs.ULID(c.now()))
	c.step(&next, fleet.StepCommitted, "on "+string(to)+" instead: "+why.Detail)
	return c.commitTo(ctx, r, m, next, func(t *txn) {
		if in.Move.To != "" && in.Move.To != to {
			t.release(in.Move.To, m.val.ID)
		}
		t.hold(to, m.val.ID, fleet.Allocated{Resources: m.val.Config.Resources, Move: next.ID})
	})
}

func (c *Control) noteProgress(ctx context.Context, r row[fleet.Move], in plan.MoveInput) error {
	t, next := c.begin(), r.val
	now := plan.ReportedStep(in.Move, in.Target.VM)
	if now == fleet.StepStarted && r.val.Step == fleet.StepCommitted { // no report told of the step between
		c.step(&next, fleet.StepAttached, "")
	}
	c.step(&next, now, "")
	t.move(r, next)
	return t.commit(ctx)
}

// finishMove ends the move's effect: the machine is healthy on its target and free for other operations, its
// network's lock and the source's share are given back.
func (c *Control) finishMove(ctx context.Context, r row[fleet.Move], m row[fleet.Machine], in plan.MoveInput) error {
	next := r.val
	for _, s := range []fleet.Step{fleet.StepAttached, fleet.StepStarted} {
		if next.Reached(s).Before(next.Reached(fleet.StepCommitted)) {
			c.step(&next, s, "")
		}
	}
	c.step(&next, fleet.StepHealthy, "")
	c.measurePause(&next)
	return c.letGo(ctx, r, m, next, leftAs{state: fleet.MachineStarted, source: in.Source})
}

// giveUp ends a move that no target starts and that has no source to go back to. The lock is given back: a
// machine that can't start must not keep its network from moving. The machine's own record goes on trying.
func (c *Control) giveUp(ctx context.Context, r row[fleet.Move], m row[fleet.Machine], why *fleet.Blocker) error {
	next := r.val
	next.Error = why.Detail
	return c.letGo(ctx, r, m, next, leftAs{state: fleet.MachineFailed, reason: why.Detail})
}

// leftAs is how a move leaves its machine, and its source as far as that is known.
type leftAs struct {
	state  fleet.MachineState
	reason string
	source plan.Sight
}

// letGo gives the machine, on the move's target, back to itself.
func (c *Control) letGo(ctx context.Context, r row[fleet.Move], m row[fleet.Machine], mv fleet.Move, as leftAs) error {
	c.step(&mv, fleet.StepUnlocked, "")
	if as.source.Clean() {
		c.step(&mv, fleet.StepDone, "")
	}
	t, machine := c.begin(), m.val
	machine.Owner, machine.State, machine.Reason = "", as.state, as.reason
	t.machine(m, machine)
	t.hold(mv.To, m.val.ID, fleet.Allocated{Resources: m.val.Config.Resources})
	t.release(mv.From, m.val.ID)
	t.unlock(mv)
	t.move(r, mv)
	if err := c.events(ctx, t, m.val.ID, moveEvents(mv, machine)...); err != nil {
		return err
	}
	return t.commit(ctx)
}

// unlock gives back the network's lock, if the move has taken it.
func (t *txn) unlock(mv fleet.Move) {
	key, slot := t.c.cache.lockOf(mv)
	switch {
	case key != "":
		t.del(key, slot.rev)
	case !mv.Reached(fleet.StepLocked).IsZero():
		t.behind = true
	}
}

// endMoveHere ends a move of a machine that its user wants stopped or destroyed by now: where it stands.
func (c *Control) endMoveHere(ctx context.Context, r row[fleet.Move], m row[fleet.Machine], in plan.MoveInput) error {
	next := r.val
	if m.val.Placement.Generation > r.val.FromGen {
		return c.letGo(ctx, r, m, next, leftAs{state: fleet.MachineStopping, source: in.Source})
	}
	c.noteReleased(&next, in)
	c.step(&next, fleet.StepDone, "stopped by its user meanwhile")
	t, machine := c.begin(), m.val
	exit, reason := exitEvent(m.val, in.Source, fleet.MachineStopped)
	machine.Owner, machine.Placement, machine.State, machine.Reason = "", nil, fleet.MachineStopped, reason
	t.machine(m, machine)
	t.release(next.From, m.val.ID)
	t.release(next.To, m.val.ID)
	t.unlock(next)
	t.move(r, next)
	if in.Source.Health == plan.Down && m.val.Desired == fleet.WantDestroyed {
		t.bury(m.val, next.From)
	}
	if err := c.events(ctx, t, m.val.ID, exit); err != nil {
		return err
	}
	return t.commit(ctx)
}

func (c *Control) endDone(ctx context.Context, r row[fleet.Move]) error {
	t, next := c.begin(), r.val
	c.step(&next, fleet.StepDone, "")
	t.move(r, next)
	return t.commit(ctx)
}

// measurePause sets how long the machine stood still: from the commit that told the source to stop to now.
func (c *Control) measurePause(mv *fleet.Move) {
	if told := mv.Reached(fleet.StepStopping); !told.IsZero() {
		mv.PauseMS = float64(c.now().Sub(told).Microseconds()) / 1000
	}
}
