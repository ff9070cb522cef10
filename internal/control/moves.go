package control

import (
	"context"
	"fmt"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
	"github.com/sluice-platform/sluice/internal/x/patience"
)

// Reasons of moves.
const (
	reasonDrain    = "drain"
	reasonMigrate  = "migrate"
	reasonFailover = "failover"
)

// codeStartFailed is the code of a blocker that lies in the machine rather than in its surroundings.
const codeStartFailed = "start-failed"

// codeNotReady is the code of a blocker that is a target without a VM for the machine.
const codeNotReady = "target-not-ready"

// moveLook is everything that a move's next action depends on.
type moveLook struct {
	mv       fleet.Move
	m        fleet.Machine
	source   sight
	target   sight
	targetOK bool          // the target still takes machines; it may be silent
	stuck    time.Duration // for how long the start that goes on has come no further, as far as that counts
	lockFree bool
	braked   bool
}

// moveAction is what a move does next.
type moveAction string

const (
	actWait       moveAction = "wait"
	actRetarget   moveAction = "retarget"    // reserve on another target; the machine still runs on the source
	actLock       moveAction = "lock"        // take the network's lock
	actStop       moveAction = "stop"        // tell the source to release it: the pause begins
	actCommit     moveAction = "commit"      // the point of no return: the placement changes
	actProgress   moveAction = "progress"    // note how far the target is
	actFinish     moveAction = "finish"      // healthy: lock and source capacity are given back
	actReclaim    moveAction = "reclaim"     // the target takes too long: have it release the machine first
	actNextTarget moveAction = "next-target" // the target fails: commit to another one
	actPutBack    moveAction = "put-back"    // undo after the stop: commit back to the source
	actUndo       moveAction = "undo"        // undo before the stop: nothing has happened
	actUndone     moveAction = "undone"      // back on the source, for better or worse
	actSettle     moveAction = "settle"      // the user wants it stopped by now: end the move where it stands
	actGiveUp     moveAction = "give-up"     // no target starts it, and there is no source to go back to
	actDone       moveAction = "done"        // the source is clean
)

// reconcileMove takes a move one action further. The action's commit has it looked at again.
func (c *Control) reconcileMove(ctx context.Context, r row[fleet.Move]) error {
	m, ok := c.cache.machine(r.val.Machine)
	if !ok || r.val.Step != fleet.StepUnlocked && m.val.Owner != moveOwner(r.val.ID) {
		return c.orphaned(ctx, r, m, ok)
	}
	look := c.look(r.val, m.val)
	act, why := c.decideMove(look)
	switch act {
	case actWait:
		return c.block(ctx, r, why)
	case actRetarget:
		return c.retarget(ctx, r, m, why)
	case actLock:
		return c.lockNetwork(ctx, r, m)
	case actStop:
		return c.stopSource(ctx, r, m, look)
	case actCommit:
		return c.commitMove(ctx, r, m, look)
	case actProgress:
		return c.noteProgress(ctx, r, look)
	case actFinish:
		return c.finishMove(ctx, r, m, look)
	case actReclaim:
		return c.setState(ctx, m, fleet.MachineStopping, why.Detail, nil)
	case actNextTarget:
		return c.nextTarget(ctx, r, m, look, why)
	case actPutBack:
		return c.putBack(ctx, r, m, look, why)
	case actUndo:
		return c.undoMove(ctx, r, m, why)
	case actUndone:
		return c.endUndone(ctx, r, m, look, why)
	case actSettle:
		return c.settleMove(ctx, r, m, look)
	case actGiveUp:
		return c.giveUp(ctx, r, m, why)
	case actDone:
		return c.endDone(ctx, r)
	}
	return nil
}

func (c *Control) look(mv fleet.Move, m fleet.Machine) moveLook {
	c.refreshFeed(mv.From)
	now := c.now()
	l := moveLook{mv: mv, m: m, source: c.obs.sight(mv.From, m.ID, now), braked: c.braked() != ""}
	if mv.To != "" {
		c.refreshFeed(mv.To)
		l.target = c.obs.sight(mv.To, m.ID, now)
		w, ok := c.cache.worker(mv.To)
		l.targetOK = ok && l.target.health != plan.Down && !w.val.Cordoned && w.val.Drain == "" && !w.val.Drained
	}
	if back := m.Placement; mv.Step == fleet.StepUndoing && back != nil && back.Generation > mv.FromGen {
		l.stuck = c.obs.stuckOn(mv.From, m.ID, back.Generation, now)
	} else if mv.To != "" {
		l.stuck = c.obs.stuckOn(mv.To, m.ID, mv.ToGen, now)
	}
	l.lockFree = c.cache.heldLocks()[mv.Network] < c.cfg.Policy.MovesPerNetwork
	return l
}

// elsewhere is what the machine needs on any other worker than those of the move.
func (l moveLook) elsewhere() plan.Need {
	exclude := map[fleet.WorkerID]string{l.mv.From: "the machine comes from it", l.mv.To: "it is slow there"}
	for _, w := range l.mv.Refused {
		exclude[w] = "no VM got ready on it"
	}
	need := needOf(l.m, exclude)
	if l.mv.Pinned {
		need.Only = l.mv.To
	}
	return need
}

// slow is the blocker of a start that takes long and is waited for.
func (l moveLook) slow(on sight, v *fleet.VMReport) *fleet.Blocker {
	return blocker(codeStartSlow, "worker/"+string(on.worker), slow(on, v), "wait for it, or: sluice worker show "+string(on.worker))
}

// decideMove says what a move does next, and for those that wait or fail, why. It changes nothing.
func (c *Control) decideMove(l moveLook) (moveAction, *fleet.Blocker) {
	switch l.mv.Step {
	case fleet.StepPlanned, fleet.StepReserved, fleet.StepLocked, fleet.StepPrepared:
		return c.decideBeforeStop(l)
	case fleet.StepStopping, fleet.StepReleased, fleet.StepUndoing:
		return c.decideStopped(l)
	case fleet.StepCommitted, fleet.StepAttached, fleet.StepStarted, fleet.StepHealthy:
		return c.decideCommitted(l)
	case fleet.StepUnlocked:
		if l.source.health == plan.Down || l.source.reported && l.source.health == plan.Alive && !hasVM(l.source.vm) {
			return actDone, nil
		}
	}
	return actWait, nil
}

// decideBeforeStop: the source still runs the machine, unless it is lost.
func (c *Control) decideBeforeStop(l moveLook) (moveAction, *fleet.Blocker) {
	lost := l.source.health == plan.Down
	switch {
	case l.mv.Cancel || l.m.Desired != fleet.WantStarted:
		return actUndo, nil
	case l.mv.Reason == reasonFailover && (!lost || l.braked):
		return actUndo, blocker("source-back", "worker/"+string(l.mv.From), "the source is not lost any more, or too many workers are", "")
	case l.mv.To == "" || !l.targetOK:
		return actRetarget, nil
	case l.mv.Step == fleet.StepPlanned || l.mv.Step == fleet.StepReserved:
		if l.lockFree {
			return actLock, nil
		}
		return actWait, blocker("network-locked", "network/"+string(l.mv.Network), "another machine of the network is moving", "wait for it: sluice drain list")
	case l.target.health == plan.Suspect:
		return actWait, suspect(l.mv.To)
	case lost:
		return actCommit, nil
	case l.source.health == plan.Suspect:
		return actWait, suspect(l.mv.From)
	}
	return c.decidePrepared(l)
}

// decidePrepared: the source is stopped only when a VM stands ready on the target, so that no boot falls into the
// pause. One that is slow to read the machine's map is waited for shortly, as that only makes the pause longer;
// one that can't be had is looked for elsewhere.
func (c *Control) decidePrepared(l moveLook) (moveAction, *fleet.Blocker) {
	to, v, now := string(l.mv.To), l.target.vm, c.now()
	if v != nil && v.Generation != l.mv.ToGen {
		v = nil
	}
	waited := now.Sub(reached(l.mv, fleet.StepLocked))
	switch {
	case prepared(l):
		return actStop, nil
	case v != nil && v.Phase == fleet.PhaseFailed:
		return actRetarget, blocker(codeNotReady, "worker/"+to, "no VM on "+to+" got ready for it: "+failure(v), "sluice worker show "+to)
	case v != nil && v.HasVM && now.Sub(l.target.vmSince) >= c.cfg.PrepareWait:
		return actStop, nil
	case v != nil && v.HasVM:
		return actWait, nil
	case c.pace(l.target, waited, l.stuck, l.elsewhere()) == paceStuck:
		return actRetarget, blocker(codeNotReady, "worker/"+to, fmt.Sprintf("no VM on %s was ready for it after %s", to, waited.Round(time.Second)), "sluice worker show "+to)
	case waited > c.cfg.PrepareWait:
		return actWait, blocker(codeNotReady, "worker/"+to, to+" has no VM ready and boots one; until then the machine runs on "+string(l.mv.From), "wait for it, or: sluice worker show "+to)
	}
	return actWait, nil
}

// decideStopped: the source was told to release the machine, and where it has, the machine is nowhere.
func (c *Control) decideStopped(l moveLook) (moveAction, *fleet.Blocker) {
	if l.mv.Step == fleet.StepUndoing && l.m.Placement.Generation > l.mv.FromGen {
		return c.decidePutBack(l)
	}
	lost := l.source.health == plan.Down
	_, gone := c.left(l.source, l.mv.FromGen)
	undo := l.mv.Cancel || l.mv.Step == fleet.StepUndoing
	switch {
	case !gone && !lost:
		return actWait, c.stopSlow(l)
	case l.m.Desired != fleet.WantStarted:
		return actSettle, nil
	case undo && !lost:
		return actPutBack, nil
	case l.targetOK && l.target.health == plan.Alive:
		return actCommit, nil
	case l.targetOK && l.target.unheard:
		return actWait, suspect(l.mv.To) // this server has just started; it will hear of it, or find it down
	default:
		return actNextTarget, blocker("target-lost", "worker/"+string(l.mv.To), string(l.mv.To)+" takes no machines any more", "")
	}
}

// decidePutBack: the machine was given back to the source, and is coming up there.
func (c *Control) decidePutBack(l moveLook) (moveAction, *fleet.Blocker) {
	object, waited := "machine/"+string(l.m.ID), c.now().Sub(l.m.Placement.Since)
	v := l.source.vm
	switch {
	case l.source.health == plan.Down:
		return actUndone, blocker("worker-down", "worker/"+string(l.mv.From), string(l.mv.From)+" went down while the machine was put back", "")
	case l.m.Desired != fleet.WantStarted:
		return actUndone, nil
	case v != nil && v.Generation == l.m.Placement.Generation && (v.Phase == fleet.PhaseHealthy || v.Phase == fleet.PhaseRunning):
		return actUndone, nil
	case v != nil && v.Generation == l.m.Placement.Generation && l.source.current && ended(v):
		return actUndone, blocker(codeStartFailed, object, "it doesn't start on its source either: "+failure(v), "")
	}
	switch c.pace(l.source, waited, l.stuck, l.elsewhere()) {
	case paceStuck:
		return actUndone, blocker(codeStartFailed, object, fmt.Sprintf("not up on its source %s after it was put back", waited.Round(1e9)), "")
	case paceSlow:
		return actWait, l.slow(l.source, v)
	}
	return actWait, nil
}

// decideCommitted: the machine is the target's.
func (c *Control) decideCommitted(l moveLook) (moveAction, *fleet.Blocker) {
	object, waited := "machine/"+string(l.m.ID), c.now().Sub(l.m.Placement.Since)
	v := l.target.vm
	if v != nil && v.Generation != l.m.Placement.Generation {
		v = nil
	}
	slow := l.m.State == fleet.MachineStopping
	switch {
	case l.m.Desired != fleet.WantStarted:
		return actSettle, nil
	case !slow && v != nil && v.Phase == fleet.PhaseHealthy, !slow && v != nil && v.Phase == fleet.PhaseRunning && l.mv.WasUnhealthy:
		return actFinish, nil
	case l.target.health == plan.Down:
		return actNextTarget, blocker("target-down", "worker/"+string(l.mv.To), string(l.mv.To)+" went down before the machine was healthy on it", "")
	case !slow && v != nil && l.target.current && ended(v):
		return actNextTarget, blocker(codeStartFailed, object, "not started on "+string(l.mv.To)+": "+failure(v), "")
	case slow:
		return c.decideReclaimed(l, object)
	}
	now := c.pace(l.target, waited, l.stuck, l.elsewhere())
	switch {
	case now == paceStuck && l.target.health == plan.Alive:
		return actReclaim, blocker(codeStartFailed, object, fmt.Sprintf("not healthy on %s after %s, and came no further", l.mv.To, waited.Round(1e9)), "")
	case v != nil && c.progress(l.mv, v) != "":
		return actProgress, nil
	case now != paceFine:
		return actWait, l.slow(l.target, v)
	}
	return actWait, nil
}

// decideReclaimed: the target took too long, and was told to release the machine again, so that it doesn't come
// up there while it comes up elsewhere. One that doesn't do that either is left to the storage to refuse.
func (c *Control) decideReclaimed(l moveLook, object string) (moveAction, *fleet.Blocker) {
	why := blocker(codeStartFailed, object, l.m.Reason, "")
	limit := patience.Stretch(c.cfg.Policy.StartTimeout, l.target.pressure.Share(), helpless)
	if _, gone := c.left(l.target, l.m.Placement.Generation); gone || c.now().Sub(l.m.UpdatedAt) > limit {
		return actNextTarget, why
	}
	return actWait, why
}

// stopSlow is the blocker of a source that takes longer than the machine's own stop timeout allows.
func (c *Control) stopSlow(l moveLook) *fleet.Blocker {
	limit := l.m.Config.Stop.Timeout + stopSlack
	if l.mv.Cancel || l.source.vm != nil && l.source.vm.Phase == fleet.PhaseFailed && l.source.vm.Generation == l.mv.FromGen {
		limit = 0
	}
	if c.now().Sub(reached(l.mv, fleet.StepStopping)) <= limit {
		return nil
	}
	detail := "the source has not released it yet"
	if l.source.vm != nil && l.source.vm.Error != "" {
		detail = "the source can't release it: " + l.source.vm.Error
	}
	return blocker("stop-slow", "machine/"+string(l.m.ID), detail, "sluice machine status "+string(l.m.ID))
}

func prepared(l moveLook) bool {
	v := l.target.vm
	return v != nil && v.Phase == fleet.PhasePrepared && v.Generation == l.mv.ToGen
}

// suspect is the blocker of a move that waits until a worker answers or is down.
func suspect(w fleet.WorkerID) *fleet.Blocker {
	return blocker("worker-suspect", "worker/"+string(w), string(w)+" is silent; the move goes on once it answers or is down",
		"check that the worker runs and reaches the server")
}

// ended says that a report is of a machine that doesn't come up by itself any more. Only a current report
// may be asked: one from before the commit tells of the warming up under the same generation.
func ended(v *fleet.VMReport) bool {
	return v.Phase == fleet.PhaseFailed || v.Phase == fleet.PhaseFenced || v.Phase == fleet.PhaseReleased
}

func blocker(code, object, detail, remedy string) *fleet.Blocker {
	return &fleet.Blocker{Code: code, Object: object, Detail: detail, Remedy: remedy}
}
