package worker

import (
	"fmt"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
)

// serviceReady is the state of a service whose check passes, as the platform says it.
const serviceReady = "ready"

// startMark counts how often a machine's start was seen to have come further. That its VM uses the
// processor isn't counted: one that spins for ever does so, too.
type startMark struct {
	mark  string
	count int64
}

// advance compares how far the start is with what was seen last.
func (p *startMark) advance(mark string) int64 {
	if mark != p.mark {
		p.mark = mark
		p.count++
	}
	return p.count
}

// stepsOf says how far a platform is by its own account: the parts of a bind that have ended.
func stepsOf(h guestapi.Health) string {
	n := len(h.Steps)
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n, h.Steps[n-1])
}

// markOf says how far a machine's start is; the mark changes when it has come further. booted
// counts what the pool does for those that wait for a VM, read what the VM has read of its disk. A
// service that is started over and over gets no further by that.
func markOf(r *fleet.VMReport, steps string, booted, read int64) string {
	mark := fmt.Sprint(r.Generation, r.Phase, r.VM)
	switch {
	case r.Phase == fleet.PhasePreparing && !r.HasVM:
		return fmt.Sprint(mark, booted)
	case r.Phase == fleet.PhasePreparing, r.Phase == fleet.PhaseAttaching,
		r.Phase == fleet.PhaseStarting:
		return fmt.Sprint(mark, steps, read)
	case r.Phase == fleet.PhaseRunning:
		ready := 0
		for _, s := range r.Services {
			if s.State == serviceReady {
				ready++
			}
		}
		return fmt.Sprint(mark, steps, ready)
	}
	return mark
}
