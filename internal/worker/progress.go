package worker

import (
	"fmt"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
)

// serviceReady is the state of a service whose check passes, as the platform says it.
const serviceReady = "ready"

// startMark counts how often a machine's start has made progress. CPU use doesn't count, because a
// start that loops for ever uses CPU too.
type startMark struct {
	mark  string
	count int64
}

// advance returns the count, increased if the mark differs from the last one.
func (p *startMark) advance(mark string) int64 {
	if mark != p.mark {
		p.mark = mark
		p.count++
	}
	return p.count
}

// stepsOf returns the number and the name of the last step that the platform reports of a bind; ""
// if there is none.
func stepsOf(h guestapi.Health) string {
	n := len(h.Steps)
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n, h.Steps[n-1].Name, h.Steps[n-1].Took) // not for how long it has ended
}

// markOf returns a string that changes whenever a machine's start has made progress. booted is the
// pool's progress with VMs that machines wait for; read is the bytes that the VM has read of its
// disk. Restarts of a service are no progress.
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
