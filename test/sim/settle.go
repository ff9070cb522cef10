package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// settled returns nil once everything that was asked for is true, or names what it waits for; else
// the first thing that isn't.
func (w *world) settled() error {
	if w.server() == nil {
		return fmt.Errorf("there is no server")
	}
	s := w.shadow
	for _, id := range slices.Sorted(maps.Keys(s.machines)) {
		if err := w.machineSettled(s.machines[id]); err != nil {
			return err
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.moves)) {
		if mv := s.moves[id]; !mv.Step.Final() {
			return fmt.Errorf("move %s is still %s: %+v", id, mv.Step, mv)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.drains)) {
		if d := s.drains[id]; !d.State.Final() &&
			(d.State != fleet.DrainBlocked || len(d.Blockers) == 0 || d.Blockers[0].Remedy == "") {
			return fmt.Errorf("drain %s is %s and names no blocker: %+v", id, d.State, d)
		}
	}
	if len(s.locks) > 0 || len(s.tombstones) > 0 {
		return fmt.Errorf("left: locks %v, tombstones %v", s.locks, s.tombstones)
	}
	return w.hostsSettled()
}

func (w *world) machineSettled(m fleet.Machine) error {
	switch {
	case m.Owner != "":
		return fmt.Errorf("machine %s is still owned by %s: %s", m.ID, m.Owner, w.describe(m.ID))
	case m.Desired == fleet.DesiredDestroyed:
		return fmt.Errorf("machine %s is still there: %s", m.ID, m.State)
	case m.Desired == fleet.DesiredStopped &&
		(m.Placement != nil || m.State != fleet.MachineStopped && m.State != fleet.MachineCreated):
		return fmt.Errorf("machine %s is not stopped: %s, %+v", m.ID, m.State, m.Placement)
	case m.Desired == fleet.DesiredStopped:
		return nil
	case m.State == fleet.MachineFailed && strings.HasPrefix(m.Reason, "no worker has room"):
		return nil
	case m.State != fleet.MachineStarted || m.Placement == nil:
		return fmt.Errorf("machine %s is not started: %s (%s), %+v", m.ID, m.State, m.Reason,
			m.Placement)
	}
	for _, k := range w.workers {
		if known := k.known[m.ID]; k.id == m.Placement.Worker && known != nil && known.life != nil {
			if v := known.life.vm; v != nil && v.alive && v.generation == m.Placement.Generation &&
				v.phase == fleet.PhaseHealthy {
				return nil
			}
		}
	}
	return fmt.Errorf("machine %s has no healthy VM on %s at generation %d: %s", m.ID,
		m.Placement.Worker, m.Placement.Generation, w.describe(m.ID))
}

// hostsSettled: nothing is left anywhere that nobody placed there, nothing is lost that was
// acknowledged.
func (w *world) hostsSettled() error {
	s := w.shadow
	for _, k := range w.workers {
		for _, id := range k.vms() {
			if m, ok := s.machines[id]; !ok || m.Placement == nil || m.Placement.Worker != k.id {
				return fmt.Errorf("%s has a VM of %s that isn't placed there: %+v", k.id, id,
					k.known[id].life)
			}
		}
		for id := range s.allocations[k.id].Holders {
			if m, ok := s.machines[id]; !ok || m.Placement == nil || m.Placement.Worker != k.id {
				return fmt.Errorf("%s holds capacity on %s and isn't placed there", id, k.id)
			}
		}
	}
	for id, d := range w.disks.of {
		if !slices.Equal(d.log, d.acked) {
			return fmt.Errorf("machine %s lost acknowledged writes: %v, acknowledged %v", id, d.log,
				d.acked)
		}
		if _, ok := s.machines[id]; !ok {
			return fmt.Errorf("the disk of machine %s is left behind", id)
		}
	}
	return nil
}

func (w *world) tally() Tally {
	t := Tally{Commits: w.commits, Servers: len(w.servers)}
	for _, mv := range w.shadow.moves {
		switch {
		case mv.Step == fleet.StepUndone:
			t.Undone++
		case mv.Proof == fleet.ProofStorage:
			t.Failovers++
		default:
			t.Moves++
		}
	}
	for _, d := range w.shadow.drains {
		switch d.State {
		case fleet.DrainDone:
			t.Drained++
		case fleet.DrainCancelled:
			t.Cancelled++
		default:
			t.Blocked++
		}
	}
	for _, d := range w.disks.of {
		t.Writes += len(d.acked)
	}
	return t
}

// describe says what each host knows of a machine.
func (w *world) describe(id fleet.MachineID) string {
	var parts []string
	for _, k := range w.workers {
		m := k.known[id]
		if m == nil {
			continue
		}
		part := fmt.Sprintf("%s: newest %d, %s@%d, withdrawn %v", k.id, m.newest, m.want.Want,
			m.want.Generation, m.withdrawn)
		if l := m.life; l != nil {
			part += fmt.Sprintf(", life @%d %s bound %v ended %v %q", l.generation, l.phase,
				l.bound, l.ended, l.failed)
			if l.vm != nil {
				part += fmt.Sprintf(", vm %s alive %v", l.vm.phase, l.vm.alive)
			}
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "; ")
}
