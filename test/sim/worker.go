package sim

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// worker is a host with its daemon. Durable on the host: what it knows of machines. Gone with the
// daemon: what it was last told and what it has to report. Gone with the host: its VMs.
type worker struct {
	w        *world
	id       fleet.WorkerID
	capacity fleet.Resources
	up       bool // the host
	daemon   bool // its worker process
	cut      bool // from the server, not from the store
	boots    int
	sequence int64
	seen     int64
	applied  int64 // newest set taken in since the daemon began
	sent     int64 // newest set put on the wire, and by which server
	sentBy   *server
	known    map[fleet.MachineID]*known
	warmed   map[fleet.MachineID]fleet.Generation // of the newest VM that got ready for a machine
	joined   bool
	pressure fleet.Pressure
}

// known is the durable record of a machine on a worker.
type known struct {
	newest    fleet.Generation // newest generation ever seen: an older assignment is refused
	want      fleet.Assignment
	withdrawn bool
	life      *life
}

// life is one attempt at what was wanted, under one generation.
type life struct {
	generation fleet.Generation
	instance   fleet.InstanceID
	bound      bool
	ended      bool
	phase      fleet.Phase // once ended, or before there is a VM
	failed     string
	vm         *vm // nil: none
	warming    bool
}

func (k *worker) reachable() bool { return k.up && k.daemon && !k.cut }

// join introduces the worker; repeated until it succeeds.
func (k *worker) join() {
	s := k.w.server()
	if !k.reachable() || s == nil {
		return
	}
	address := netip.MustParseAddr("fd00::" + string(k.id[1:]))
	_, err := s.c.Join(s.ctx, fleet.JoinRequest{Worker: k.id, Address: address,
		APIURL:   "https://[" + address.String() + "]:7600",
		Capacity: k.capacity, Runtime: "sandbox"})
	k.joined = err == nil
}

// heartbeat reports now and then, whatever happens.
func (k *worker) heartbeat() {
	k.w.after(k.w.between(800*time.Millisecond, 1100*time.Millisecond), k.heartbeat)
	if !k.reachable() {
		return
	}
	if !k.joined {
		k.join()
	}
	k.sent = 0 // the long poll is made anew
	k.report()
}

// report puts what the worker sees on the wire. It may be late, come twice, or never.
func (k *worker) report() {
	if !k.reachable() || k.w.chance(60) {
		return
	}
	k.sequence++
	r := fleet.WorkerReport{Worker: k.id, Boot: fmt.Sprintf("%s-%d", k.id, k.boots),
		Sequence: k.sequence, Seen: k.seen, VMs: k.observe(),
		Pressure: &fleet.Pressure{CPU: k.pressure.CPU}}
	times := 1
	if k.w.chance(40) {
		times = 2
	}
	for range times {
		k.w.after(k.w.between(time.Millisecond, k.w.delay()), func() {
			s := k.w.server()
			if s == nil || k.cut {
				return
			}
			if err := s.c.Report(s.ctx, r); err != nil {
				k.joined = false
				return
			}
			s.converge()
		})
	}
}

func (k *worker) observe() []fleet.VMReport {
	var all []fleet.VMReport
	for _, id := range slices.Sorted(maps.Keys(k.known)) {
		l := k.known[id].life
		if l == nil {
			continue
		}
		v := fleet.VMReport{Machine: id, Generation: l.generation, Instance: l.instance,
			Phase: l.phase, HasVM: l.vm != nil, Error: l.failed}
		if l.failed != "" {
			v.ErrorKind = "unavailable"
		}
		if l.vm != nil && l.bound && !l.ended {
			v.Phase = l.vm.phase
			if k.w.opt.Break != BugNoMarks {
				v.Progress = l.vm.progress
			}
		}
		all = append(all, v)
	}
	return all
}

// take gets a set of assignments: older generations are refused, machines not named are left alone.
func (k *worker) take(set fleet.AssignmentSet) {
	if !k.reachable() || set.Revision < k.applied {
		return
	}
	k.applied = set.Revision
	named := map[fleet.MachineID]bool{}
	for _, a := range set.Assignments {
		named[a.Machine] = true
		m := k.known[a.Machine]
		if m == nil {
			m = &known{}
			k.known[a.Machine] = m
		}
		m.withdrawn = false
		if a.Generation < m.newest {
			k.w.logf("%s refuses %s@%d of %s, has seen %d", k.id, a.Want, a.Generation,
				a.Machine, m.newest)
			continue
		}
		m.newest, m.want = a.Generation, a
	}
	for _, id := range slices.Sorted(maps.Keys(k.known)) {
		k.known[id].withdrawn = !named[id]
		k.drive(id)
	}
	k.seen = set.Revision
	k.report()
}

// noticed is the daemon's notice that something has changed in a VM.
func (k *worker) noticed(id fleet.MachineID) {
	if k.up && k.daemon {
		k.drive(id)
		k.report()
	}
}

// drive does what is to be done for a machine next; modelled after the worker's own decision table.
func (k *worker) drive(id fleet.MachineID) {
	m := k.known[id]
	if m == nil {
		return
	}
	for range 10 {
		if !k.driveOnce(id, m) {
			return
		}
	}
}

func (k *worker) driveOnce(id fleet.MachineID, m *known) bool {
	l, want := m.life, m.want.Want
	switch {
	case l == nil && (m.withdrawn || want == ""):
		return false
	case l == nil:
		m.life = &life{generation: m.want.Generation, instance: m.want.Instance,
			phase: fleet.PhasePreparing}
		return true
	case l.ended:
		return k.driveEnded(id, m)
	}
	if l.vm != nil && !l.vm.alive {
		k.endLife(m, fleet.PhaseFailed, "its VM has died")
		return true
	}
	older := l.generation < m.want.Generation
	switch {
	case l.vm != nil && l.bound && l.vm.phase == fleet.PhaseReleased:
		k.endLife(m, fleet.PhaseReleased, "")
	case l.vm != nil && l.bound &&
		(l.vm.phase == fleet.PhaseFailed || l.vm.phase == fleet.PhaseFenced):
		k.endLife(m, l.vm.phase, l.vm.failed)
	case m.withdrawn && !l.bound:
		k.endLife(m, fleet.PhaseReleased, "")
	case m.withdrawn:
		return false
	case want == fleet.WantDiscarded:
		k.endLife(m, fleet.PhaseReleased, "discarded")
	case l.bound && l.vm.phase == fleet.PhaseStopping:
		return false
	case want == fleet.WantReleased && !l.bound:
		k.endLife(m, fleet.PhaseReleased, "")
	case want == fleet.WantReleased:
		l.vm.release()
		return false
	case older && l.bound && want == fleet.WantPrepared:
		return false
	case older && l.bound:
		k.endLife(m, fleet.PhaseReleased, "superseded")
	case older:
		k.endLife(m, fleet.PhaseReleased, "")
	case l.vm == nil:
		k.claim(id, m, l)
		return false
	case want == fleet.WantRunning && !l.bound:
		l.bound = true
		l.vm.bind()
		return false
	default:
		return false
	}
	return true
}

func (k *worker) driveEnded(id fleet.MachineID, m *known) bool {
	l, want := m.life, m.want.Want
	switch {
	case l.phase != fleet.PhaseReleased &&
		(want == fleet.WantReleased || want == fleet.WantDiscarded) && !m.withdrawn:
		l.phase = fleet.PhaseReleased
	case l.vm != nil:
		v := l.vm
		k.w.after(k.w.between(time.Millisecond, 50*time.Millisecond), func() {
			if k.up && k.daemon && l.vm == v {
				v.kill()
				l.vm = nil
				k.noticed(id)
			}
		})
		return false
	case m.withdrawn, l.generation < m.want.Generation &&
		(want == fleet.WantRunning || want == fleet.WantPrepared),
		!l.bound && l.phase == fleet.PhaseReleased &&
			(want == fleet.WantRunning || want == fleet.WantPrepared):
		m.life = nil
		if m.withdrawn {
			m.want.Want = ""
		}
	default:
		return false
	}
	return true
}

func (k *worker) endLife(m *known, p fleet.Phase, why string) {
	l := m.life
	if l.vm != nil && (why == "discarded" || why == "superseded") {
		l.vm.kill()
	}
	l.ended, l.phase, l.failed = true, p, why
}

// claim gets a warm VM; it takes a moment, in which the wish may change.
func (k *worker) claim(id fleet.MachineID, m *known, l *life) {
	if l.warming {
		return
	}
	l.warming = true
	daemon := k.boots
	boot := k.w.between(2*time.Millisecond, 150*time.Millisecond)
	if !k.w.healed && k.w.rng.IntN(8) == 0 { // the pool is empty, and a boot is slow
		boot = k.w.between(time.Second, 30*time.Second)
	}
	k.w.after(boot, func() {
		if k.boots != daemon {
			return // a daemon that has died waited for it; the next one begins anew
		}
		l.warming = false
		if !k.up || !k.daemon || m.life != l || l.ended {
			return
		}
		l.vm = &vm{w: k.w, host: k, machine: id, generation: l.generation, alive: true}
		k.warmed[id] = l.generation
		if m.want.Want == fleet.WantPrepared {
			l.phase = fleet.PhasePrepared
		}
		k.noticed(id)
	})
}

// killDaemon ends the worker's process; its VMs live on, and a new process finds them.
func (k *worker) killDaemon(downFor time.Duration) {
	if !k.daemon || !k.up {
		return
	}
	k.daemon = false
	k.w.logf("%s: daemon dies for %s", k.id, downFor)
	k.w.after(downFor, k.startDaemon)
}

func (k *worker) startDaemon() {
	if k.daemon || !k.up {
		return
	}
	k.daemon, k.joined = true, false
	k.boots++
	k.sequence, k.seen, k.applied, k.sent = 0, 0, 0, 0
	k.w.logf("%s: daemon is back", k.id)
	for _, id := range slices.Sorted(maps.Keys(k.known)) {
		if l := k.known[id].life; l != nil {
			l.warming = false
		}
		k.drive(id)
	}
	k.join()
	k.report()
}

// killHost ends everything on the host; what it knows is on its disk.
func (k *worker) killHost(downFor time.Duration) {
	if !k.up {
		return
	}
	k.up, k.daemon = false, false
	for _, m := range k.known {
		if m.life != nil && m.life.vm != nil {
			m.life.vm.kill()
		}
	}
	k.w.logf("%s: host dies for %s", k.id, downFor)
	k.w.after(downFor, k.startHost)
}

func (k *worker) startHost() {
	if k.up {
		return
	}
	k.up = true
	k.startDaemon()
}

func (k *worker) cutOff(d time.Duration) {
	if k.cut {
		return
	}
	k.cut = true
	k.w.logf("%s: cut off for %s", k.id, d)
	k.w.after(d, func() { k.cut = false })
}

// vms returns the VMs on the host that a report would name as VMs.
func (k *worker) vms() []fleet.MachineID {
	var ids []fleet.MachineID
	for _, id := range slices.Sorted(maps.Keys(k.known)) {
		if l := k.known[id].life; l != nil && l.vm != nil {
			ids = append(ids, id)
		}
	}
	return ids
}
