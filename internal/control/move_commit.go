package control

import (
	"context"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
)

// commitMove is the point of no return. It is one small transaction, because the machine stands
// still meanwhile: the source's share and the events wait for finishMove.
func (c *Control) commitMove(ctx context.Context, r records.Row[fleet.Move],
	m records.Row[fleet.Machine], in plan.MoveInput) error {
	next := r.Val
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
func (c *Control) commitTo(ctx context.Context, r records.Row[fleet.Move],
	m records.Row[fleet.Machine], mv fleet.Move, more func(*records.Txn)) error {
	w, _ := c.records.Workers.Get(mv.To)
	t, machine := c.records.Begin(), m.Val
	machine.Generation = max(machine.Generation, mv.ToGen)
	machine.Placement = c.placementOn(m.Val, w.Val, mv.ToGen, mv.Instance)
	machine.State, machine.Reason = fleet.MachineMoving, ""
	t.SetMachine(m, machine)
	t.ExpectWorker(mv.To)
	t.SetMove(r, mv)
	if more != nil {
		more(t)
	}
	return t.Commit(ctx)
}

// nextTarget gives up a target for another one, or tries it again.
func (c *Control) nextTarget(ctx context.Context, r records.Row[fleet.Move],
	m records.Row[fleet.Machine], in plan.MoveInput, other plan.Target) error {
	to := other.To
	next := r.Val
	if !in.Move.Step.PastCommit() {
		c.noteReleased(&next, in)
	} else {
		next.Attempt++
	}
	next.To, next.ToGen, next.Instance = to, m.Val.Generation+1,
		fleet.InstanceID(c.deps.IDs.ULID(c.now()))
	c.step(&next, fleet.StepCommitted, "on "+string(to)+" instead: "+other.Why.Detail)
	return c.commitTo(ctx, r, m, next, func(t *records.Txn) {
		if in.Move.To != "" && in.Move.To != to {
			t.Release(in.Move.To, m.Val.ID)
		}
		t.Hold(to, m.Val.ID, fleet.Allocated{Resources: m.Val.Config.Resources, Move: next.ID})
	})
}

func (c *Control) noteProgress(ctx context.Context, r records.Row[fleet.Move],
	in plan.MoveInput) error {
	t, next := c.records.Begin(), r.Val
	now := plan.ReportedStep(in.Move, in.Target.VM)
	// no report told of the step between
	if now == fleet.StepStarted && r.Val.Step == fleet.StepCommitted {
		c.step(&next, fleet.StepAttached, "")
	}
	c.step(&next, now, "")
	t.SetMove(r, next)
	return t.Commit(ctx)
}

// finishMove ends the move's effect: the machine is healthy on its target and free for other
// operations, its network's lock and the source's share are given back.
func (c *Control) finishMove(ctx context.Context, r records.Row[fleet.Move],
	m records.Row[fleet.Machine], in plan.MoveInput) error {
	next := r.Val
	for _, s := range []fleet.Step{fleet.StepAttached, fleet.StepStarted} {
		if next.Reached(s).Before(next.Reached(fleet.StepCommitted)) {
			c.step(&next, s, "")
		}
	}
	c.step(&next, fleet.StepHealthy, "")
	c.measurePause(&next)
	return c.endOnTarget(ctx, r, m, next, leftAs{state: fleet.MachineStarted, source: in.Source})
}

// giveUp ends a move that no target starts and that has no source to go back to. The lock is given
// back: a machine that can't start must not keep its network from moving. The machine's own record
// goes on trying.
func (c *Control) giveUp(ctx context.Context, r records.Row[fleet.Move],
	m records.Row[fleet.Machine], why *fleet.Blocker) error {
	next := r.Val
	next.Error = why.Detail
	return c.endOnTarget(ctx, r, m, next, leftAs{state: fleet.MachineFailed, reason: why.Detail})
}

// leftAs is how a move leaves its machine, and its source as far as that is known.
type leftAs struct {
	state  fleet.MachineState
	reason string
	source plan.Sight
}

// endOnTarget ends the move's effect with the machine on the target, owned by nobody.
func (c *Control) endOnTarget(ctx context.Context, r records.Row[fleet.Move],
	m records.Row[fleet.Machine], mv fleet.Move, as leftAs) error {
	c.step(&mv, fleet.StepUnlocked, "")
	if as.source.Clean() {
		c.step(&mv, fleet.StepDone, "")
	}
	t, machine := c.records.Begin(), m.Val
	machine.Owner, machine.State, machine.Reason = "", as.state, as.reason
	t.SetMachine(m, machine)
	t.Hold(mv.To, m.Val.ID, fleet.Allocated{Resources: m.Val.Config.Resources})
	t.Release(mv.From, m.Val.ID)
	t.Unlock(mv)
	t.SetMove(r, mv)
	if err := c.events(ctx, t, m.Val.ID, moveEvents(mv, machine)...); err != nil {
		return err
	}
	return t.Commit(ctx)
}

// endMoveHere ends a move of a machine that its user wants stopped or destroyed by now: where it
// stands.
func (c *Control) endMoveHere(ctx context.Context, r records.Row[fleet.Move],
	m records.Row[fleet.Machine], in plan.MoveInput) error {
	next := r.Val
	if m.Val.Placement.Generation > r.Val.FromGen {
		return c.endOnTarget(ctx, r, m, next,
			leftAs{state: fleet.MachineStopping, source: in.Source})
	}
	c.noteReleased(&next, in)
	c.step(&next, fleet.StepDone, "stopped by its user meanwhile")
	t, machine := c.records.Begin(), m.Val
	exit, reason := exitEvent(m.Val, in.Source, fleet.MachineStopped)
	machine.Owner, machine.Placement, machine.State, machine.Reason = "", nil, fleet.MachineStopped,
		reason
	t.SetMachine(m, machine)
	t.Release(next.From, m.Val.ID)
	t.Release(next.To, m.Val.ID)
	t.Unlock(next)
	t.SetMove(r, next)
	if in.Source.Health == plan.Down && m.Val.Desired == fleet.DesiredDestroyed {
		t.RememberLost(m.Val, next.From)
	}
	if err := c.events(ctx, t, m.Val.ID, exit); err != nil {
		return err
	}
	return t.Commit(ctx)
}

func (c *Control) endDone(ctx context.Context, r records.Row[fleet.Move]) error {
	t, next := c.records.Begin(), r.Val
	c.step(&next, fleet.StepDone, "")
	t.SetMove(r, next)
	return t.Commit(ctx)
}

// measurePause sets how long the machine stood still: from the commit that told the source to stop
// to now.
func (c *Control) measurePause(mv *fleet.Move) {
	if told := mv.Reached(fleet.StepStopping); !told.IsZero() {
		mv.PauseMS = float64(c.now().Sub(told).Microseconds()) / 1000
	}
}
