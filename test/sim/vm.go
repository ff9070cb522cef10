package sim

import (
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// vm is one VM on a host. It lives on without the worker's daemon and without the server, as long
// as its host does; what it says is heard only while the daemon runs.
type vm struct {
	w          *world
	host       *worker
	machine    fleet.MachineID
	generation fleet.Generation
	phase      fleet.Phase // "" while it is warm and empty
	epoch      uint64
	alive      bool
	failed     string
	progress   int64 // grows as its start gets further
	// when it grew last; zero: its start isn't one of those that take very long
	further time.Time
}

// later does something in the VM, unless it has ended by then.
func (v *vm) later(low, high time.Duration, do func()) {
	v.w.after(v.w.between(low, high), func() {
		if v.alive {
			do()
			v.host.noticed(v.machine)
		}
	})
}

func (v *vm) bind() {
	v.phase = fleet.PhaseAttaching
	v.later(5*time.Millisecond, 80*time.Millisecond, func() {
		switch {
		case v.phase != fleet.PhaseAttaching:
		case v.w.chance(30):
			v.end(fleet.PhaseFailed, "the store did not answer")
		case !v.w.disks.attach(v):
			v.end(fleet.PhaseFenced, "a newer generation has the disk")
		default:
			v.phase = fleet.PhaseStarting
			v.write()
			v.come()
		}
	})
}

// come brings the machine in the VM up; once in a while it takes very long, or fails.
func (v *vm) come() {
	slow := 200 * time.Millisecond
	switch {
	case v.w.chance(20):
		slow = 90 * time.Second
	case v.w.chance(30):
		v.crawl(2 + v.w.rng.IntN(20))
		return
	}
	v.later(10*time.Millisecond, slow, v.up)
}

// crawl brings it up in steps, each of which takes a while: slow, and never stuck.
func (v *vm) crawl(steps int) {
	v.further = v.w.now
	v.later(2*time.Second, crawlStep, func() {
		switch {
		case v.phase != fleet.PhaseStarting:
		case steps > 0:
			v.progress++
			v.crawl(steps - 1)
		default:
			v.further = time.Time{}
			v.up()
		}
	})
}

// crawlStep is the longest that a start which gets further takes for a step: well below the time
// after which one that doesn't is given up, because reports get lost.
const crawlStep = 10 * time.Second

func (v *vm) up() {
	if v.phase != fleet.PhaseStarting {
		return
	}
	if v.w.chance(20) {
		v.end(fleet.PhaseFailed, "its service can't be started")
		return
	}
	v.phase = fleet.PhaseRunning
	v.later(5*time.Millisecond, 100*time.Millisecond, func() {
		if v.phase == fleet.PhaseRunning {
			v.phase = fleet.PhaseHealthy
		}
	})
}

// write keeps writing as long as the VM has the disk.
func (v *vm) write() {
	v.later(300*time.Millisecond, 1500*time.Millisecond, func() {
		switch v.phase {
		case fleet.PhaseStarting, fleet.PhaseRunning, fleet.PhaseHealthy, fleet.PhaseStopping:
			if !v.w.disks.write(v) {
				v.end(fleet.PhaseFenced, "a newer epoch has the disk")
				return
			}
			v.write()
		}
	})
}

func (v *vm) release() {
	if v.phase == fleet.PhaseStopping || v.phase == fleet.PhaseReleased {
		return
	}
	v.phase = fleet.PhaseStopping
	v.later(10*time.Millisecond, 400*time.Millisecond, func() {
		if v.phase != fleet.PhaseStopping {
			return
		}
		v.w.disks.write(v) // what is flushed at the end
		v.w.disks.close(v)
		v.phase = fleet.PhaseReleased
	})
}

// end is the VM's own end: it stays as a corpse until its worker removes it.
func (v *vm) end(p fleet.Phase, why string) { v.phase, v.failed = p, why }

// over says that the VM has ended by itself: it writes nothing any more.
func (v *vm) over() bool {
	return v.phase == fleet.PhaseFailed || v.phase == fleet.PhaseFenced ||
		v.phase == fleet.PhaseReleased
}

// kill ends the VM from outside.
func (v *vm) kill() { v.alive = false }
