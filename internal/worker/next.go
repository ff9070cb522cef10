package worker

import (
	"github.com/sluice-platform/sluice/internal/fleet"
)

// step is the next thing to do for a machine.
type step string

// Steps. Those in the second group take time and run as tasks.
const (
	stepNone           step = ""
	stepBegin          step = "begin"           // start a run
	stepIntend         step = "intend"          // write down that the VM is about to be bound
	stepDrop           step = "drop"            // end a run that never had the disk
	stepDiscard        step = "discard"         // end a run without asking its platform
	stepLost           step = "lost"            // end a run whose VM is gone
	stepReportReleased step = "report-released" // report an ended run as released
	stepForget         step = "forget"

	stepClaim   step = "claim"
	stepPrepare step = "prepare"
	stepBind    step = "bind"
	stepRelease step = "release"
	stepRemove  step = "remove"
)

// binding is how far a VM's binding is, as far as this process knows.
type binding int

// A restarted worker knows that a VM was to be bound, and learns from the platform whether it was.
const (
	bindUnknown binding = iota
	bindNeeded          // certainly not told yet
	bindTried           // told, without an answer
	bindDone
)

// situation is all that decides what is next.
type situation struct {
	want      fleet.Want
	withdrawn bool // the newest set doesn't name the machine
	forgotten bool // and it was forgotten for that; only a newer assignment brings it back
	hasRun    bool // there is one
	older     bool // the run is of an older generation than the assignment

	hasVM     bool
	bound     bool
	binding   binding
	prepared  bool // the platform was told to warm up
	releasing bool // the platform was told to release, or is at it by itself

	ended     bool
	released  bool       // it ended, or was settled, as released
	endedWant fleet.Want // what was wanted when it ended
}

// next decides; pure. Each step changes the situation so that the same step is not next again.
func next(s situation) step {
	switch {
	case !s.hasRun:
		switch {
		case s.withdrawn:
			return stepForget
		case s.forgotten:
			return stepNone
		}
		return stepBegin
	case s.ended:
		return nextAfterEnd(s)
	case s.withdrawn && !s.bound:
		return stepDrop // a prepared VM is safe to drop; a bound one is left alone
	case s.bound && !s.hasVM:
		return stepLost
	case s.want == fleet.WantDiscarded:
		return stepDiscard
	case s.releasing && s.bound:
		return stepRelease // there's no way back from it
	}
	switch s.want {
	case fleet.WantPrepared:
		return nextPrepared(s)
	case fleet.WantRunning:
		return nextRunning(s)
	case fleet.WantReleased:
		if !s.bound || s.binding == bindNeeded {
			return stepDrop
		}
		return stepRelease
	case fleet.WantDiscarded: // handled above
	}
	return stepNone // a want of a newer release: leave things as they are
}

func nextAfterEnd(s situation) step {
	switch {
	case !s.released && (s.want == fleet.WantReleased || s.want == fleet.WantDiscarded):
		return stepReportReleased
	case s.hasVM:
		return stepRemove
	case s.withdrawn:
		return stepForget
	case s.older && (s.want == fleet.WantRunning || s.want == fleet.WantPrepared):
		return stepBegin
	case s.bound:
		return stepNone
	case s.want == fleet.WantRunning && (s.released || s.endedWant == fleet.WantPrepared):
		return stepBegin // it was only dropped, or what failed was the warming up
	case s.want == fleet.WantPrepared && s.released:
		return stepBegin
	}
	return stepNone
}

func nextPrepared(s situation) step {
	switch {
	case s.bound:
		return stepNone // an older generation may still run: that is for the control plane to end
	case s.older:
		return stepDrop // warmed for another disk
	case s.prepared:
		return stepNone
	case !s.hasVM:
		return stepClaim
	}
	return stepPrepare
}

func nextRunning(s situation) step {
	switch {
	case s.bound && s.older:
		return stepDiscard // superseded: the disk belongs to the newer generation
	case s.older:
		return stepDrop
	case !s.hasVM:
		return stepClaim
	case !s.bound:
		return stepIntend
	case s.binding == bindNeeded || s.binding == bindTried:
		return stepBind
	}
	return stepNone
}
