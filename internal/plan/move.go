package plan

import (
	"fmt"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// MoveInput is everything that a move's next action depends on.
type MoveInput struct {
	Move    fleet.Move
	Machine fleet.Machine
	Source  Sight
	Target  Sight // the zero Sight where the move has no target
	// TargetOpen: the target still takes machines. It may be silent.
	TargetOpen bool
	// Stuck is for how long the start that goes on has come no further, as far as that counts.
	Stuck time.Duration
	// CalmElsewhere: a third worker that isn't under pressure would take the machine.
	CalmElsewhere bool
	// LockFree: a slot of the network's lock is free.
	LockFree bool
	// Braked: too many workers are down for the fleet to act by itself.
	Braked bool
}

// MoveAction is what a move does next.
type MoveAction string

// Actions of moves.
const (
	MoveWait       MoveAction = "wait"
	MoveRetarget   MoveAction = "retarget"    // reserve on another target; the source runs it still
	MoveLock       MoveAction = "lock"        // take the network's lock
	MoveStop       MoveAction = "stop"        // tell the source to release it: the pause begins
	MoveCommit     MoveAction = "commit"      // the point of no return: the placement changes
	MoveProgress   MoveAction = "progress"    // note how far the target is
	MoveFinish     MoveAction = "finish"      // healthy: lock and source capacity are given back
	MoveReclaim    MoveAction = "reclaim"     // the target takes too long: have it release it first
	MoveNextTarget MoveAction = "next-target" // the target fails: commit to another one
	MoveGiveUp     MoveAction = "give-up"     // no target starts it, and no source can
	MovePutBack    MoveAction = "put-back"    // undo after the stop: commit back to the source
	MoveUndo       MoveAction = "undo"        // undo before the stop: nothing has happened
	MoveUndone     MoveAction = "undone"      // back on the source, for better or worse
	MoveEndHere    MoveAction = "end-here"    // its user wants it stopped by now
	MoveDone       MoveAction = "done"        // the source is clean
)

const (
	// stopSlack is how much longer than its stop timeout a machine may take before its move says
	// so.
	stopSlack = 10 * time.Second
	// tellAfter is how long a start takes before its steps are recorded one by one: each is a
	// transaction, and a quick start tells them all at its end.
	tellAfter = 300 * time.Millisecond
)

// Move returns what a move does next, and for one that waits or fails, why. The blocker's Since is
// the caller's to set.
func Move(in MoveInput, policy fleet.Policy, now time.Time) (MoveAction, *fleet.Blocker) {
	m := moveDecision{in, policy, now}
	switch s := in.Move.Step; {
	case s.SourceRuns():
		return m.beforeStop()
	case s.SourceToldToStop():
		return m.stopped()
	case s.TargetOwns():
		return m.committed()
	case s == fleet.StepUnlocked && in.Source.Clean():
		return MoveDone, nil
	}
	return MoveWait, nil
}

// moveDecision is one call of Move.
type moveDecision struct {
	MoveInput
	policy fleet.Policy
	now    time.Time
}

// beforeStop: the source still runs the machine, unless it is lost.
func (m moveDecision) beforeStop() (MoveAction, *fleet.Blocker) {
	mv, lost := m.Move, m.Source.Health == Down
	switch {
	case mv.Cancel || m.Machine.Desired != fleet.DesiredStarted:
		return MoveUndo, nil
	case mv.Reason == fleet.ReasonFailover && (!lost || m.Braked):
		return MoveUndo, blocker(fleet.CodeSourceBack, onWorker(mv.From),
			"the source is not lost any more, or too many workers are", "")
	case mv.To == "" || !m.TargetOpen:
		return MoveRetarget, nil
	case mv.Step.Before(fleet.StepLocked) && m.LockFree:
		return MoveLock, nil
	case mv.Step.Before(fleet.StepLocked):
		return MoveWait, blocker(fleet.CodeNetworkLocked, "network/"+string(mv.Network),
			"another machine of the network is moving", "wait for it: sluice drain list")
	case m.Target.Health == Suspect:
		return MoveWait, suspect(mv.To)
	case lost:
		return MoveCommit, nil
	case m.Source.Health == Suspect:
		return MoveWait, suspect(mv.From)
	}
	return m.locked()
}

// locked: the source is stopped only when a VM stands ready on the target, so that no boot falls
// into the pause. One that is slow to read the machine's map is waited for shortly, as that only
// makes the pause longer; one that can't be had is looked for elsewhere.
func (m moveDecision) locked() (MoveAction, *fleet.Blocker) {
	to, v := string(m.Move.To), m.Target.At(m.Move.ToGen)
	waited := m.now.Sub(m.Move.Reached(fleet.StepLocked))
	notReady := func(detail string) *fleet.Blocker {
		return blocker(fleet.CodeNotReady, onWorker(m.Move.To), detail, "sluice worker show "+to)
	}
	switch {
	case m.TargetPrepared():
		return MoveStop, nil
	case v != nil && v.Phase == fleet.PhaseFailed:
		return MoveRetarget, notReady("no VM on " + to + " got ready for it: " + Failure(v))
	case v != nil && v.HasVM && m.now.Sub(m.Target.VMSince) >= m.policy.PrepareWait:
		return MoveStop, nil
	case v != nil && v.HasVM:
		return MoveWait, nil
	case m.start(m.Target, waited).Judge(m.policy) == PaceStuck:
		return MoveRetarget, notReady(fmt.Sprintf("no VM on %s was ready for it after %s", to,
			waited.Round(time.Second)))
	case waited > m.policy.PrepareWait:
		b := notReady(to + " has no VM ready and boots one; until then the machine runs on " +
			string(m.Move.From))
		b.Remedy = "wait for it, or: " + b.Remedy
		return MoveWait, b
	}
	return MoveWait, nil
}

// TargetPrepared reports whether a VM on the target has read the machine's map.
func (in MoveInput) TargetPrepared() bool {
	v := in.Target.At(in.Move.ToGen)
	return v != nil && v.Phase == fleet.PhasePrepared
}

// stopped: the source was told to release the machine, and where it has, the machine is nowhere.
func (m moveDecision) stopped() (MoveAction, *fleet.Blocker) {
	undo := m.Move.Cancel || m.Move.Step == fleet.StepUndoing
	if m.PutBack() {
		return m.puttingBack()
	}
	lost := m.Source.Health == Down
	_, gone := m.Source.Left(m.Move.FromGen, m.policy, m.now)
	switch {
	case !gone && !lost:
		return MoveWait, m.stopSlow()
	case m.Machine.Desired != fleet.DesiredStarted:
		return MoveEndHere, nil
	case undo && !lost:
		return MovePutBack, nil
	case m.TargetOpen && m.Target.Health == Alive:
		return MoveCommit, nil
	case m.TargetOpen && m.Target.Unheard:
		// This server has just started; it will hear of the target, or find it down.
		return MoveWait, suspect(m.Move.To)
	}
	return MoveNextTarget, blocker(fleet.CodeTargetLost, onWorker(m.Move.To),
		string(m.Move.To)+" takes no machines any more", "")
}

// PutBack reports whether the machine was given back to the source already.
func (in MoveInput) PutBack() bool {
	p := in.Machine.Placement
	return in.Move.Step == fleet.StepUndoing && p != nil && p.Generation > in.Move.FromGen
}

// stopSlow is the blocker of a source that takes longer than the machine's own stop timeout allows.
func (m moveDecision) stopSlow() *fleet.Blocker {
	limit := m.Machine.Config.Stop.Timeout + stopSlack
	v := m.Source.At(m.Move.FromGen)
	if m.Move.Cancel || v != nil && v.Phase == fleet.PhaseFailed {
		limit = 0
	}
	if m.now.Sub(m.Move.Reached(fleet.StepStopping)) <= limit {
		return nil
	}
	detail := "the source has not released it yet"
	if m.Source.VM != nil && m.Source.VM.Error != "" {
		detail = "the source can't release it: " + m.Source.VM.Error
	}
	return blocker(fleet.CodeStopSlow, onMachine(m.Machine.ID), detail,
		"sluice machine status "+string(m.Machine.ID))
}

func (m moveDecision) start(on Sight, waited time.Duration) Start {
	return Start{On: on, Waited: waited, Stuck: m.Stuck, CalmElsewhere: m.CalmElsewhere}
}
