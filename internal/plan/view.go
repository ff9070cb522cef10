package plan

import (
	"cmp"
	"slices"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// Health is what the control plane thinks of a worker's liveness. The zero value is not used.
type Health string

// Healths. A suspect worker gets no new work; only a down worker's machines are started elsewhere.
const (
	Alive   Health = "alive"
	Suspect Health = "suspect"
	Down    Health = "down"
)

// Worker is a worker as the planner sees it.
type Worker struct {
	fleet.Worker
	Health     Health
	Allocation fleet.Allocation
	// VMs are the machines of which the worker reported a VM, in whatever phase.
	VMs []fleet.MachineID
	// Fresh says that VMs is newer than the worker's newest assignments: nothing is about to appear.
	Fresh bool
}

// Free returns the capacity that nobody holds. It may be negative after a worker came back smaller.
func (w Worker) Free() fleet.Resources { return w.Capacity.Sub(w.Allocation.Used()) }

// View is the fleet at one moment. The planner changes nothing in it.
type View struct {
	Workers  []Worker        // all; in any order
	Machines []fleet.Machine // at least those placed on the workers that the question is about
	Moves    []fleet.Move    // all that are not final
	// Locks counts the held slots of each network's migration lock.
	Locks map[fleet.NetworkName]int
}

// MoveStart is a move that should be started now.
type MoveStart struct {
	Machine fleet.MachineID
	From    fleet.WorkerID
	To      fleet.WorkerID
}

// desk is a View being planned on: what a plan has given away already counts for the rest of the plan.
type desk struct {
	policy  fleet.Policy
	workers []Worker // sorted by id; allocations are copies
	locks   map[fleet.NetworkName]int
	out, in map[fleet.WorkerID]int
	moving  map[fleet.MachineID]bool
	moves   int
}

func newDesk(v View, policy fleet.Policy) *desk {
	d := &desk{
		policy: policy, locks: make(map[fleet.NetworkName]int, len(v.Locks)), moves: len(v.Moves),
		out: map[fleet.WorkerID]int{}, in: map[fleet.WorkerID]int{}, moving: map[fleet.MachineID]bool{},
	}
	for _, w := range v.Workers {
		holders := make(map[fleet.MachineID]fleet.Allocated, len(w.Allocation.Holders))
		for id, h := range w.Allocation.Holders {
			holders[id] = h
		}
		w.Allocation.Holders = holders
		d.workers = append(d.workers, w)
	}
	slices.SortFunc(d.workers, func(a, b Worker) int { return cmp.Compare(a.ID, b.ID) })
	for n, k := range v.Locks {
		d.locks[n] = k
	}
	for _, m := range v.Moves {
		d.out[m.From]++
		if m.To != "" {
			d.in[m.To]++
		}
		d.moving[m.Machine] = true
	}
	return d
}

func (d *desk) worker(id fleet.WorkerID) (Worker, bool) {
	i, ok := slices.BinarySearchFunc(d.workers, id, func(w Worker, id fleet.WorkerID) int { return cmp.Compare(w.ID, id) })
	if !ok {
		return Worker{}, false
	}
	return d.workers[i], true
}

// take books a move, so that the rest of the plan counts it.
func (d *desk) take(m fleet.Machine, to fleet.WorkerID) MoveStart {
	w, _ := d.worker(to)
	w.Allocation.Holders[m.ID] = fleet.Allocated{Resources: m.Config.Resources, Move: "planned"}
	d.locks[m.Network]++
	d.out[m.Placement.Worker]++
	d.in[to]++
	d.moving[m.ID] = true
	d.moves++
	return MoveStart{Machine: m.ID, From: m.Placement.Worker, To: to}
}

// byID returns the machines in a stable order, so that a plan made again proposes the same moves.
func byID(machines []fleet.Machine) []fleet.Machine {
	sorted := slices.Clone(machines)
	slices.SortFunc(sorted, func(a, b fleet.Machine) int { return cmp.Compare(a.ID, b.ID) })
	return sorted
}
