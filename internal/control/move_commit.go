package control

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
)

// commitMove is the point of no return. It is one small transaction, because the machine stands still
// meanwhile: the source's share and the events wait for finishMove.
func (c *Control) commitMove(ctx context.Context, r row[fleet.Move], m row[fleet.Machine], l moveLook) error {
	next := r.val
	c.noteReleased(&next, l)
	c.step(&next, fleet.StepCommitted, "")
	return c.commitTo(ctx, r, m, next, nil)
}

// noteReleased notes by which proof the source doesn't write any more.
func (c *Control) noteReleased(mv *fleet.Move, l moveLook) {
	proof, gone := c.left(l.source, mv.FromGen)
	note := ""
	if !gone {
		proof = fleet.ProofStorage
		note = string(mv.From) + " is down"
	} else if why := unclean(l.source, mv.FromGen); why != "" {
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
func (c *Control) nextTarget(ctx context.Context, r row[fleet.Move], m row[fleet.Machine], l moveLook, why *fleet.Blocker) error {
	committed := l.mv.Step != fleet.StepStopping && l.mv.Step != fleet.StepReleased && l.mv.Step != fleet.StepLocked && l.mv.Step != fleet.StepUndoing
	exclude := map[fleet.WorkerID]string{l.mv.From: "the machine comes from it", l.mv.To: why.Detail}
	to, blocked := c.placeCalm(needOf(m.val, exclude))
	spent := l.mv.Pinned || committed && l.mv.Attempt >= c.cfg.MaxAttempts
	if to == "" || spent {
		switch {
		case l.source.health == plan.Alive:
			return c.putBack(ctx, r, m, l, why)
		case !committed:
			return c.block(ctx, r, blocked)
		case l.targetOK && l.target.health == plan.Alive && !spent:
			to = l.mv.To
		case committed && (spent || l.target.health != plan.Down):
			return c.giveUp(ctx, r, m, why)
		default:
			return c.block(ctx, r, blocked)
		}
	}
	next := r.val
	if !committed {
		c.noteReleased(&next, l)
	} else {
		next.Attempt++
	}
	next.To, next.ToGen, next.Instance = to, m.val.Generation+1, fleet.InstanceID(c.deps.IDs.ULID(c.now()))
	c.step(&next, fleet.StepCommitted, "on "+string(to)+" instead: "+why.Detail)
	return c.commitTo(ctx, r, m, next, func(t *txn) {
		if l.mv.To != "" && l.mv.To != to {
			t.release(l.mv.To, m.val.ID)
		}
		t.hold(to, m.val.ID, fleet.Allocated{Resources: m.val.Config.Resources, Move: next.ID})
	})
}

// progress returns the step that the target's report shows and the record lacks; "" if there is none, or the
// start is quick enough to be told at its end.
func (c *Control) progress(mv fleet.Move, v *fleet.VMReport) fleet.Step {
	if c.now().Sub(reached(mv, fleet.StepCommitted)) < 300*time.Millisecond {
		return ""
	}
	switch {
	case v.Phase == fleet.PhaseStarting && mv.Step == fleet.StepCommitted:
		return fleet.StepAttached
	case v.Phase == fleet.PhaseRunning && (mv.Step == fleet.StepCommitted || mv.Step == fleet.StepAttached):
		return fleet.StepStarted
	}
	return ""
}

func (c *Control) noteProgress(ctx context.Context, r row[fleet.Move], l moveLook) error {
	t, next := c.begin(), r.val
	now := c.progress(l.mv, l.target.vm)
	if now == fleet.StepStarted && r.val.Step == fleet.StepCommitted { // no report told of the step between
		c.step(&next, fleet.StepAttached, "")
	}
	c.step(&next, now, "")
	t.move(r, next)
	return t.commit(ctx)
}

// finishMove ends the move's effect: the machine is healthy on its target and free for other operations, its
// network's lock and the source's share are given back.
func (c *Control) finishMove(ctx context.Context, r row[fleet.Move], m row[fleet.Machine], l moveLook) error {
	next := r.val
	for _, s := range []fleet.Step{fleet.StepAttached, fleet.StepStarted} {
		if reached(next, s).Before(reached(next, fleet.StepCommitted)) {
			c.step(&next, s, "")
		}
	}
	c.step(&next, fleet.StepHealthy, "")
	c.measurePause(&next)
	return c.letGo(ctx, r, m, next, fleet.MachineStarted, "", l)
}

// giveUp ends a move that no target starts and that has no source to go back to. The lock is given back: a
// machine that can't start must not keep its network from moving. The machine's own record goes on trying.
func (c *Control) giveUp(ctx context.Context, r row[fleet.Move], m row[fleet.Machine], why *fleet.Blocker) error {
	next := r.val
	next.Error = why.Detail
	return c.letGo(ctx, r, m, next, fleet.MachineFailed, why.Detail, moveLook{})
}

// letGo gives the machine, on the move's target, back to itself.
func (c *Control) letGo(ctx context.Context, r row[fleet.Move], m row[fleet.Machine], mv fleet.Move, state fleet.MachineState, reason string, l moveLook) error {
	c.step(&mv, fleet.StepUnlocked, "")
	if act, _ := c.decideMove(moveLook{mv: mv, source: l.source}); act == actDone {
		c.step(&mv, fleet.StepDone, "")
	}
	t, machine := c.begin(), m.val
	machine.Owner, machine.State, machine.Reason = "", state, reason
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
	case !reached(mv, fleet.StepLocked).IsZero():
		t.behind = true
	}
}

// settleMove ends a move of a machine that its user wants stopped or destroyed by now: where it stands.
func (c *Control) settleMove(ctx context.Context, r row[fleet.Move], m row[fleet.Machine], l moveLook) error {
	next := r.val
	if m.val.Placement.Generation > r.val.FromGen {
		return c.letGo(ctx, r, m, next, fleet.MachineStopping, "", l)
	}
	c.noteReleased(&next, l)
	c.step(&next, fleet.StepDone, "stopped by its user meanwhile")
	t, machine := c.begin(), m.val
	exit, reason := exitEvent(m.val, l.source, fleet.MachineStopped)
	machine.Owner, machine.Placement, machine.State, machine.Reason = "", nil, fleet.MachineStopped, reason
	t.machine(m, machine)
	t.release(next.From, m.val.ID)
	t.release(next.To, m.val.ID)
	t.unlock(next)
	t.move(r, next)
	if l.source.health == plan.Down && m.val.Desired == fleet.WantDestroyed {
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
	if told := reached(*mv, fleet.StepStopping); !told.IsZero() {
		mv.PauseMS = float64(c.now().Sub(told).Microseconds()) / 1000
	}
}
