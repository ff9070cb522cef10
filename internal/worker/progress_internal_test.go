package worker

import (
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
)

func TestWhatCountsAsProgress(t *testing.T) {
	type seen struct {
		phase        fleet.Phase
		vm           fleet.VMID
		steps        int
		booted, read int64
		services     []fleet.ServiceReport
	}
	service := func(state string, restarts int) []fleet.ServiceReport {
		return []fleet.ServiceReport{{Name: "web", State: state, Restarts: restarts}}
	}
	mark := func(s seen) string {
		h := guestapi.Health{}
		for range s.steps {
			h.Steps = append(h.Steps, guestapi.Step{Name: "step", Took: time.Second})
		}
		return markOf(&fleet.VMReport{Generation: 3, Phase: s.phase, VM: s.vm, HasVM: s.vm != "",
			Services: s.services},
			stepsOf(h), s.booted, s.read)
	}
	for _, c := range []struct {
		name   string
		before seen
		after  seen
		want   bool
	}{
		{"nothing", seen{phase: fleet.PhaseStarting, vm: "a", steps: 2},
			seen{phase: fleet.PhaseStarting, vm: "a", steps: 2}, false},
		{"the VM that it waits for says something", seen{phase: fleet.PhasePreparing},
			seen{phase: fleet.PhasePreparing, booted: 1}, true},
		{"a VM", seen{phase: fleet.PhasePreparing},
			seen{phase: fleet.PhasePreparing, vm: "a"}, true},
		{"other VMs boot, and it has one", seen{phase: fleet.PhaseStarting, vm: "a"},
			seen{phase: fleet.PhaseStarting, vm: "a", booted: 1}, false},
		{"a phase", seen{phase: fleet.PhaseAttaching, vm: "a"},
			seen{phase: fleet.PhaseStarting, vm: "a"}, true},
		{"a step of the platform", seen{phase: fleet.PhaseStarting, vm: "a"},
			seen{phase: fleet.PhaseStarting, vm: "a", steps: 1}, true},
		{"the disk is read", seen{phase: fleet.PhaseAttaching, vm: "a"},
			seen{phase: fleet.PhaseAttaching, vm: "a", read: 4096}, true},
		{"a service is ready", seen{phase: fleet.PhaseRunning, vm: "a",
			services: service("running", 0)},
			seen{phase: fleet.PhaseRunning, vm: "a", services: service("ready", 0)}, true},
		{"a service is started again",
			seen{phase: fleet.PhaseRunning, vm: "a", services: service("failed", 3)},
			seen{phase: fleet.PhaseRunning, vm: "a", services: service("running", 4),
				read: 4096}, false},
	} {
		var p startMark
		first := p.advance(mark(c.before))
		if got := p.advance(mark(c.after)) > first; got != c.want {
			t.Errorf("%s: progress %v, want %v", c.name, got, c.want)
		}
	}
}
