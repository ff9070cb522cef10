package plan

import (
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// Sight is what is known of one machine on one worker.
type Sight struct {
	Worker   fleet.WorkerID
	Health   Health
	Unheard  bool            // not heard of since this server started: nothing is known
	VM       *fleet.VMReport // nil: the newest report doesn't mention it
	VMSince  time.Time       // when this server first heard of the machine's VM there
	Reported bool            // there is a report at all
	Current  bool            // the report acted on the newest assignments
	Since    time.Time       // when the newest assignments became what they are
	Pressure *fleet.Pressure // of its host, as it said last; nil: not known
}

// At returns what is reported of the machine under one generation; nil if nothing is.
func (s Sight) At(gen fleet.Generation) *fleet.VMReport {
	if s.VM == nil || s.VM.Generation != gen {
		return nil
	}
	return s.VM
}

// Left reports whether the worker has no VM of the machine's generation any more, and by which
// proof it is safe to start it elsewhere. Ask only where the worker was told to release it.
func (s Sight) Left(gen fleet.Generation, p fleet.Policy, now time.Time) (fleet.Proof, bool) {
	switch {
	case s.VM == nil:
		// It knows that it should release the machine, and has nothing to say: it lost its memory
		// of it.
		quiet := s.Current && s.Health == Alive && now.Sub(s.Since) >= p.WorkerSuspect
		return fleet.ProofStorage, quiet
	case s.VM.Generation > gen:
		return "", false
	case s.VM.Generation < gen:
		// It was told to release a generation that never began there, and an older one has ended.
		return fleet.ProofStorage, s.Current && !HasVM(s.VM) && s.VM.Phase.Final()
	case s.VM.Phase == fleet.PhaseReleased && s.VM.Error != "":
		return fleet.ProofStorage, true // its VM ended without closing the disk
	case s.VM.Phase == fleet.PhaseReleased:
		return fleet.ProofReleased, true
	case s.VM.Phase.Final():
		return fleet.ProofStorage, !s.VM.HasVM && s.Current
	}
	return "", false
}

// Clean reports whether nothing of the machine is left on the worker, or the worker is down.
func (s Sight) Clean() bool {
	return s.Health == Down || s.Reported && s.Health == Alive && !HasVM(s.VM)
}

// ended reports whether the machine doesn't come up there by itself any more. Only a current report
// counts: one from before the commit tells of the warming up under the same generation.
func (s Sight) ended(gen fleet.Generation) bool {
	v := s.At(gen)
	return v != nil && s.Current && v.Phase.Final()
}

// HasVM reports whether a VM of the machine exists, by this report; nil is no report.
func HasVM(v *fleet.VMReport) bool { return v != nil && (v.HasVM || v.Phase.NeedsVM()) }

// Failure returns why a machine has ended, for people.
func Failure(v *fleet.VMReport) string {
	why := v.Error
	if why == "" {
		why = "its VM has ended"
	}
	if v.Remedy != "" {
		why += " (" + v.Remedy + ")"
	}
	return why
}

// ReportedStep returns the step of a committed move that a target's report shows, where that is
// further than the record; else "".
func ReportedStep(mv fleet.Move, v *fleet.VMReport) fleet.Step {
	if v == nil || v.Generation != mv.ToGen || !mv.Step.TargetOwns() {
		return ""
	}
	var shown fleet.Step
	switch {
	case v.Phase == fleet.PhaseStarting:
		shown = fleet.StepAttached
	case v.Phase.Up():
		shown = fleet.StepStarted
	}
	if !mv.Step.Before(shown) {
		return ""
	}
	return shown
}
