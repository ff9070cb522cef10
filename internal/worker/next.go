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

// binding is how far the VM's bind has got, as far as this worker process knows.
type binding int

// A restarted worker knows that a bind was recorded. The platform's first report tells whether it
// arrived.
const (
	bindUnknown binding = iota
	bindNeeded          // not sent
	bindTried           // sent, and not answered
	bindDone
)

// situation is everything that the next step depends on.
type situation struct {
	want      fleet.Want
	withdrawn bool // the newest set doesn't name the machine
	forgotten bool // for that reason; only a newer assignment revives it
	hasRun    bool // the machine has a run
	older     bool // the run is of an older generation than the assignment

	hasVM     bool
	bound     bool
	binding   binding
	prepared  bool // the platform was asked to prepare
	releasing bool // the platform is stopping the machine, asked or by itself

	ended     bool
	released  bool       // it ended as released, or was reported so later
	endedWant fleet.Want // what was wanted when it ended
}

// next returns the next step; it is a pure function. Each step changes the situation, so that no
// step follows itself.
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
		return stepRelease // a release can't be taken back
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
	return stepNone // a want that only a newer version knows: change nothing
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
		return stepBegin // it was dropped, or failed while it was being prepared
	case s.want == fleet.WantPrepared && s.released:
		return stepBegin
	}
	return stepNone
}

func nextPrepared(s situation) step {
	switch {
	case s.bound:
		return stepNone // an older generation may run: the control plane ends it
	case s.older:
		return stepDrop // prepared for another disk
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
