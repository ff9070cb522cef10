package control

import (
	"context"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
)

// reconcileMove takes a move one action further. The action's commit enqueues it again.
func (c *Control) reconcileMove(ctx context.Context, r records.Row[fleet.Move]) error {
	m, ok := c.records.Machines.Get(r.Val.Machine)
	if !ok || r.Val.Step.Counts() && m.Val.Owner != moveOwner(r.Val.ID) {
		return c.orphaned(ctx, r, ok)
	}
	in := c.gatherMove(r.Val, m.Val)
	next := c.decideMove(in)
	why := next.Why
	switch next.Action {
	case plan.MoveWait:
		return c.block(ctx, r, why)
	case plan.MoveRetarget:
		return c.retarget(ctx, r, m, next)
	case plan.MoveLock:
		return c.lockNetwork(ctx, r, m)
	case plan.MoveStop:
		return c.stopSource(ctx, r, m, in)
	case plan.MoveCommit:
		return c.commitMove(ctx, r, m, in)
	case plan.MoveProgress:
		return c.noteProgress(ctx, r, in)
	case plan.MoveFinish:
		return c.finishMove(ctx, r, m, in)
	case plan.MoveReclaim:
		return c.setState(ctx, m, fleet.MachineStopping, why.Detail, nil)
	case plan.MoveNextTarget:
		return c.nextTarget(ctx, r, m, in, next)
	case plan.MoveGiveUp:
		return c.giveUp(ctx, r, m, why)
	case plan.MovePutBack:
		return c.putBack(ctx, r, m, in, why)
	case plan.MoveUndo:
		return c.undoMove(ctx, r, m, why)
	case plan.MoveUndone:
		return c.endUndone(ctx, r, m, in, why)
	case plan.MoveEndHere:
		return c.endMoveHere(ctx, r, m, in)
	case plan.MoveDone:
		return c.endDone(ctx, r)
	}
	return nil
}

// decideMove returns the move's next action, and the worker for one that needs another worker.
func (c *Control) decideMove(in plan.MoveInput) plan.Target {
	act, why := plan.Move(in, c.cfg.Policy, c.now())
	if act == plan.MoveRetarget {
		return plan.Retarget(in, why, c.placeCalm)
	}
	if act == plan.MoveNextTarget {
		return plan.NextTarget(in, why, c.cfg.MaxAttempts, c.placeCalm)
	}
	return plan.Target{Action: act, Why: why}
}

// gatherMove returns all that a move's next action depends on, as it is now.
func (c *Control) gatherMove(mv fleet.Move, m fleet.Machine) plan.MoveInput {
	c.refreshFeed(mv.From)
	now := c.now()
	in := plan.MoveInput{Move: mv, Machine: m, Source: c.obs.sight(mv.From, m.ID, now),
		Braked:   c.braked() != "",
		LockFree: c.records.HeldLocks(mv.Network) < c.cfg.Policy.MovesPerNetwork}
	if mv.To != "" {
		c.refreshFeed(mv.To)
		in.Target = c.obs.sight(mv.To, m.ID, now)
		w, ok := c.records.Workers.Get(mv.To)
		in.TargetOpen = ok && in.Target.Health != plan.Down &&
			!w.Val.Cordoned && w.Val.Drain == "" && !w.Val.Drained
	}
	on := in.Target
	if in.PutBack() {
		on = in.Source
		in.Stuck = c.obs.stuckOn(mv.From, m.ID, m.Placement.Generation, now)
	} else if mv.To != "" {
		in.Stuck = c.obs.stuckOn(mv.To, m.ID, mv.ToGen, now)
	}
	// Only a host under pressure makes a difference of whether another one is not.
	in.CalmElsewhere = on.Pressure.High() && c.calmElsewhere(otherTargets(mv, m))
	return in
}

// otherTargets is what the machine needs on a third worker, where it may go to one.
func otherTargets(mv fleet.Move, m fleet.Machine) plan.Need {
	need := plan.OtherTargets(mv, m, "it is slow there")
	if mv.Pinned {
		need.Only = mv.To
	}
	return need
}
