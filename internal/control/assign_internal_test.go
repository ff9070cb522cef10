package control

import (
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
)

func TestDeriveAssignments(t *testing.T) {
	placed := func(w fleet.WorkerID, gen fleet.Generation) *fleet.Placement {
		return &fleet.Placement{Worker: w, Generation: gen}
	}
	machine := func(edit func(*fleet.Machine)) *fleet.Machine {
		m := &fleet.Machine{ID: "m", Desired: fleet.DesiredStarted, State: fleet.MachineStarted,
			Generation: 3, Placement: placed("w1", 3)}
		edit(m)
		return m
	}
	move := func(step fleet.Step) *fleet.Move {
		return &fleet.Move{ID: "v", Machine: "m", From: "w2", To: "w1", FromGen: 3, ToGen: 4,
			Step: step, Reason: fleet.ReasonDrain}
	}
	away := func(m *fleet.Machine) {
		m.Placement, m.Owner, m.Generation = placed("w2", 3), "move/v", 4
	}
	vm := func(gen fleet.Generation, p fleet.Phase) *fleet.VMReport {
		return &fleet.VMReport{Machine: "m", Generation: gen, Phase: p,
			HasVM: p != fleet.PhaseReleased}
	}
	for _, c := range []struct {
		name    string
		machine *fleet.Machine
		move    *fleet.Move
		vm      *fleet.VMReport
		tomb    bool
		want    fleet.Want
		gen     fleet.Generation
	}{
		{"runs here", machine(func(*fleet.Machine) {}), nil, nil, false, fleet.WantRunning, 3},
		{"its disk is being made", machine(func(m *fleet.Machine) {
			m.Owner = "create/x"
		}), nil, nil, false, "", 0},
		{"to be stopped", machine(func(m *fleet.Machine) {
			m.Desired = fleet.DesiredStopped
		}), nil, nil, false, fleet.WantReleased, 3},
		{"started again while it stops", machine(func(m *fleet.Machine) {
			m.State = fleet.MachineStopping
		}), nil, nil, false, fleet.WantReleased, 3},
		{"comes here, lock not yet held", machine(away), move(fleet.StepReserved), nil, false, "",
			0},
		{"comes here", machine(away), move(fleet.StepLocked), nil, false, fleet.WantPrepared, 4},
		{"comes here, source stopping", machine(away), move(fleet.StepStopping),
			vm(4, fleet.PhasePrepared), false, fleet.WantPrepared, 4},
		{"came here", machine(func(m *fleet.Machine) {
			m.Placement, m.Owner, m.Generation = placed("w1", 4), "move/v", 4
		}), move(fleet.StepCommitted), nil, false, fleet.WantRunning, 4},
		{"leaves, not told yet", machine(func(m *fleet.Machine) {
			m.Owner = "move/v"
		}), &fleet.Move{ID: "v", Machine: "m", From: "w1", To: "w2", FromGen: 3,
			Step: fleet.StepLocked}, nil, false, fleet.WantRunning, 3},
		{"leaves", machine(func(m *fleet.Machine) {
			m.Owner = "move/v"
		}), &fleet.Move{ID: "v", Machine: "m", From: "w1", To: "w2", FromGen: 3,
			Step: fleet.StepStopping}, nil, false, fleet.WantReleased, 3},
		{"stopped by its user as it leaves, not told yet", machine(func(m *fleet.Machine) {
			m.Owner, m.Desired = "move/v", fleet.DesiredStopped
		}), &fleet.Move{ID: "v", Machine: "m", From: "w1", To: "w2", FromGen: 3,
			Step: fleet.StepLocked}, nil, false, fleet.WantRunning, 3},
		{"put back", machine(func(m *fleet.Machine) {
			m.Owner, m.Placement, m.Generation = "move/v", placed("w1", 5), 5
		}), &fleet.Move{ID: "v", Machine: "m", From: "w1", To: "w2", FromGen: 3,
			Step: fleet.StepUndoing}, vm(3, fleet.PhaseReleased), false, fleet.WantRunning, 5},
		{"has left, released", machine(func(m *fleet.Machine) {
			m.Placement, m.Generation = placed("w2", 4), 4
		}), nil, vm(3, fleet.PhaseReleased), false, "", 0},
		{"zombie", machine(func(m *fleet.Machine) {
			m.Placement, m.Generation = placed("w2", 4), 4
		}), nil, vm(3, fleet.PhaseHealthy), false, fleet.WantDiscarded, 4},
		{"warmed for a move that was undone", machine(func(m *fleet.Machine) {
			m.Placement, m.Generation = placed("w2", 3), 4
		}), nil, vm(4, fleet.PhasePrepared), false, fleet.WantDiscarded, 4},
		{"left over, placed nowhere", machine(func(m *fleet.Machine) {
			m.Placement, m.Desired = nil, fleet.DesiredStopped
		}), nil, vm(3, fleet.PhaseHealthy), false, fleet.WantReleased, 3},
		{"newer than the records", machine(func(m *fleet.Machine) {
			m.Placement = placed("w2", 3)
		}), nil, vm(9, fleet.PhaseHealthy), false, "", 0},
		{"destroyed meanwhile", nil, nil, vm(3, fleet.PhaseHealthy), true, fleet.WantDiscarded, 3},
		{"destroyed meanwhile, and gone", nil, nil, vm(3, fleet.PhaseReleased), true, "", 0},
		{"unknown", nil, nil, vm(3, fleet.PhaseHealthy), false, "", 0},
	} {
		in := records.Around{Worker: fleet.Worker{ID: "w1"},
			Machines:   map[fleet.MachineID]fleet.Machine{},
			Tombstones: map[fleet.MachineID]records.Tombstone{}}
		var reports []fleet.VMReport
		if c.machine != nil {
			in.Machines["m"] = *c.machine
		}
		if c.move != nil {
			in.Moves = append(in.Moves, *c.move)
		}
		if c.vm != nil {
			reports = append(reports, *c.vm)
		}
		if c.tomb {
			in.Tombstones["m"] = records.Tombstone{Machine: "m", Worker: "w1", Generation: 3}
		}
		var got fleet.Assignment
		if set := deriveAssignments(in, reports); len(set.Assignments) > 0 {
			got = set.Assignments[0]
		}
		if got.Want != c.want || got.Generation != c.gen {
			t.Errorf("%s: %q at generation %d, want %q at %d", c.name, got.Want, got.Generation,
				c.want, c.gen)
		}
	}
}

func TestLateReportsAreDropped(t *testing.T) {
	now := fleet.DefaultPolicy()
	o := newObserver(now, testTime)
	say := func(boot string, seq int64, phase fleet.Phase) {
		o.take(fleet.WorkerReport{Worker: "w", Boot: boot, Sequence: seq,
			VMs: []fleet.VMReport{{Machine: "m", Phase: phase}}}, testTime)
	}
	expect := func(want fleet.Phase) {
		t.Helper()
		if r, _, _ := o.report("w"); r.VMs[0].Phase != want {
			t.Fatalf("%s, want %s", r.VMs[0].Phase, want)
		}
	}
	say("a", 2, fleet.PhaseRunning)
	say("a", 1, fleet.PhaseStarting)
	expect(fleet.PhaseRunning)
	say("b", 1, fleet.PhaseHealthy)
	say("a", 2, fleet.PhaseRunning) // repeated on the way
	expect(fleet.PhaseHealthy)
	say("a", 3, fleet.PhaseRunning) // nobody can know that it is late
	say("b", 2, fleet.PhaseHealthy)
	expect(fleet.PhaseHealthy)
}

var testTime = time.Unix(1000, 0)
