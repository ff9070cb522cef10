package fleet

import "slices"

// Phase is how far a VM has come with its machine, as its platform and its worker say.
type Phase string

// Phases. A VM goes through them once, in this order; failed and fenced are ends, too.
const (
	PhaseEmpty     Phase = "empty"     // of a VM alone: it is no machine's yet
	PhasePreparing Phase = "preparing" // of a worker alone: it looks for a VM, or warms it
	PhasePrepared  Phase = "prepared"
	PhaseAttaching Phase = "attaching" // VM bound; the disk is being attached
	PhaseStarting  Phase = "starting"  // attached; inner container and services are coming up
	PhaseRunning   Phase = "running"   // started; not every check has passed yet
	PhaseHealthy   Phase = "healthy"   // every check passes (or there is none)
	PhaseStopping  Phase = "stopping"
	// the disk is closed; nothing of the machine is left but its record
	PhaseReleased Phase = "released"
	PhaseFailed   Phase = "failed" // could not reach Want at this generation; Error says why
	// the storage refused it: a newer owner exists; the VM is gone
	PhaseFenced Phase = "fenced"
)

// phaseOrder is the order in which a VM goes through the phases.
var phaseOrder = []Phase{
	PhaseEmpty, PhasePreparing, PhasePrepared, PhaseAttaching, PhaseStarting, PhaseRunning,
	PhaseHealthy, PhaseStopping, PhaseReleased, PhaseFailed, PhaseFenced,
}

// Before reports whether p comes before o. A phase that this release doesn't know comes before all.
func (p Phase) Before(o Phase) bool {
	return slices.Index(phaseOrder, p) < slices.Index(phaseOrder, o)
}

// Final reports whether nothing comes after p: the machine doesn't come up by itself any more.
func (p Phase) Final() bool {
	return p == PhaseReleased || p == PhaseFailed || p == PhaseFenced
}

// NeedsVM reports whether there is a VM of the machine as long as it is in p.
func (p Phase) NeedsVM() bool { return !p.Before(PhaseAttaching) && !p.Final() }

// Up reports whether the machine's services run.
func (p Phase) Up() bool { return p == PhaseRunning || p == PhaseHealthy }
