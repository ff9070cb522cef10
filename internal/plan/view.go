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
	// ShutOut: its certificates are revoked. It is down, and on purpose.
	ShutOut bool
	// Fresh says that VMs is newer than the worker's newest assignments: nothing is about to
	// appear.
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

// tally is a View with this plan's own bookings applied.
type tally struct {
	policy  fleet.Policy
	workers []Worker // sorted by id; allocations are copies
	locks   map[fleet.NetworkName]int
	out, in map[fleet.WorkerID]int
	moving  map[fleet.MachineID]bool
	moves   int
}

func newTally(v View, policy fleet.Policy) *tally {
	t := &tally{
		policy: policy, locks: make(map[fleet.NetworkName]int, len(v.Locks)), moves: len(v.Moves),
		out: map[fleet.WorkerID]int{}, in: map[fleet.WorkerID]int{},
		moving: map[fleet.MachineID]bool{},
	}
	for _, w := range v.Workers {
		holders := make(map[fleet.MachineID]fleet.Allocated, len(w.Allocation.Holders))
		for id, h := range w.Allocation.Holders {
			holders[id] = h
		}
		w.Allocation.Holders = holders
		t.workers = append(t.workers, w)
	}
	slices.SortFunc(t.workers, func(a, b Worker) int { return cmp.Compare(a.ID, b.ID) })
	for n, k := range v.Locks {
		t.locks[n] = k
	}
	for _, m := range v.Moves {
		t.out[m.From]++
		if m.To != "" {
			t.in[m.To]++
		}
		t.moving[m.Machine] = true
	}
	return t
}

func (t *tally) worker(id fleet.WorkerID) (Worker, bool) {
	i, ok := slices.BinarySearchFunc(t.workers, id, func(w Worker, id fleet.WorkerID) int {
		return cmp.Compare(w.ID, id)
	})
	if !ok {
		return Worker{}, false
	}
	return t.workers[i], true
}

// book books a move, so that the rest of the plan counts it.
func (t *tally) book(m fleet.Machine, to fleet.WorkerID) MoveStart {
	w, _ := t.worker(to)
	w.Allocation.Holders[m.ID] = fleet.Allocated{Resources: m.Config.Resources, Move: "planned"}
	t.locks[m.Network]++
	t.out[m.Placement.Worker]++
	t.in[to]++
	t.moving[m.ID] = true
	t.moves++
	return MoveStart{Machine: m.ID, From: m.Placement.Worker, To: to}
}

// byID returns the machines in a stable order, so that a plan made again proposes the same moves.
func byID(machines []fleet.Machine) []fleet.Machine {
	sorted := slices.Clone(machines)
	slices.SortFunc(sorted, func(a, b fleet.Machine) int { return cmp.Compare(a.ID, b.ID) })
	return sorted
}
