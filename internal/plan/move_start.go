package plan

import (
	"fmt"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/patience"
)

// puttingBack: the machine was given back to the source, and is coming up there.
func (m moveDecision) puttingBack() (MoveAction, *fleet.Blocker) {
	from, placed := m.Move.From, m.Machine.Placement
	v := m.Source.At(placed.Generation)
	switch {
	case m.Source.Health == Down:
		return MoveUndone, blocker(fleet.CodeWorkerDown, onWorker(from),
			string(from)+" went down while the machine was put back", "")
	case m.Machine.Desired != fleet.DesiredStarted:
		return MoveUndone, nil
	case v != nil && v.Phase.Up():
		return MoveUndone, nil
	case m.Source.ended(placed.Generation):
		return MoveUndone, m.startFailed("it doesn't start on its source either: " + Failure(v))
	}
	waited := m.now.Sub(placed.Since)
	start := m.start(m.Source, waited)
	switch start.Judge(m.policy) {
	case PaceStuck:
		return MoveUndone,
			m.startFailed(fmt.Sprintf("not up on its source %s after it was put back",
				waited.Round(time.Second)))
	case PaceSlow:
		return MoveWait, startSlow(start)
	}
	return MoveWait, nil
}

// committed: the machine is the target's.
func (m moveDecision) committed() (MoveAction, *fleet.Blocker) {
	to, placed := m.Move.To, m.Machine.Placement
	v := m.Target.At(placed.Generation)
	reclaimed := m.Machine.State == fleet.MachineStopping
	switch {
	case m.Machine.Desired != fleet.DesiredStarted:
		return MoveEndHere, nil
	case !reclaimed && m.finished(v):
		return MoveFinish, nil
	case m.Target.Health == Down:
		return MoveNextTarget, blocker(fleet.CodeTargetDown, onWorker(to),
			string(to)+" went down before the machine was healthy on it", "")
	case !reclaimed && m.Target.ended(placed.Generation):
		return MoveNextTarget, m.startFailed("not started on " + string(to) + ": " + Failure(v))
	case reclaimed:
		return m.reclaimed()
	}
	on, waited := m.Target, m.now.Sub(placed.Since)
	on.VM = v
	start := m.start(on, waited)
	pace := start.Judge(m.policy)
	switch {
	case pace == PaceStuck && m.Target.Health == Alive:
		return MoveReclaim, m.startFailed(fmt.Sprintf("not healthy on %s after %s, and came no "+
			"further%s", to, waited.Round(time.Second), failing(v)))
	case m.now.Sub(m.Move.Reached(fleet.StepCommitted)) >= tellAfter &&
		ReportedStep(m.Move, v) != "":
		return MoveProgress, nil
	case pace != PaceFine:
		return MoveWait, startSlow(start)
	}
	return MoveWait, nil
}

// finished reports whether the machine is as well on the target as it was on the source.
func (m moveDecision) finished(v *fleet.VMReport) bool {
	return v != nil && (v.Phase == fleet.PhaseHealthy || v.Phase.Up() && m.Move.WasUnhealthy)
}

// reclaimed: the target took too long, and was told to release the machine again, so that it
// doesn't come up there while it comes up elsewhere. One that doesn't do that either is left to the
// storage to refuse.
func (m moveDecision) reclaimed() (MoveAction, *fleet.Blocker) {
	limit := patience.Stretch(m.policy.StartTimeout, m.Target.Pressure.Share(), helpless)
	_, gone := m.Target.Left(m.Machine.Placement.Generation, m.policy, m.now)
	if gone || m.now.Sub(m.Machine.UpdatedAt) > limit {
		return MoveNextTarget, m.startFailed(m.Machine.Reason)
	}
	return MoveWait, m.startFailed(m.Machine.Reason)
}

func (m moveDecision) startFailed(detail string) *fleet.Blocker {
	return blocker(fleet.CodeStartFailed, onMachine(m.Machine.ID), detail, "")
}

// startSlow is the blocker of a start that takes long and is waited for.
func startSlow(s Start) *fleet.Blocker {
	return blocker(fleet.CodeStartSlow, onWorker(s.On.Worker), s.Slow(),
		"wait for it, or: sluice worker show "+string(s.On.Worker))
}

// suspect is the blocker of a move that waits until a worker answers or is down.
func suspect(w fleet.WorkerID) *fleet.Blocker {
	return blocker(fleet.CodeWorkerSuspect, onWorker(w),
		string(w)+" is silent; the move goes on once it answers or is down",
		"check that the worker runs and reaches the server")
}

func blocker(code, object, detail, remedy string) *fleet.Blocker {
	return &fleet.Blocker{Code: code, Object: object, Detail: detail, Remedy: remedy}
}

func onMachine(id fleet.MachineID) string { return "machine/" + string(id) }

func onWorker(id fleet.WorkerID) string { return "worker/" + string(id) }
