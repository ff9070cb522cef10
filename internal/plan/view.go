package plan

import (
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

// Look is what is known of workers now, other than by their records. Each is asked of few workers,
// but as often as a plan looks at one.
type Look interface {
	Health(fleet.WorkerID) Health
	// ShutOut: its certificates are revoked. It is down, and on purpose.
	ShutOut(fleet.WorkerID) bool
	// Pressed: its host is under pressure.
	Pressed(fleet.WorkerID) bool
	// VMs are the machines of which the worker reported a VM, in whatever phase. They are fresh if
	// the report is newer than the worker's newest assignments: nothing is about to appear.
	VMs(fleet.WorkerID) (ids []fleet.MachineID, fresh bool)
}

// View is the fleet at one moment. The planner changes nothing in it.
type View struct {
	*Index
	Look Look
}

// Snapshot is a fleet in plain lists, to make a View of.
type Snapshot struct {
	Workers  []Worker
	Machines []fleet.Machine
	Moves    []fleet.Move
	// Locks counts the held slots of each network's migration lock.
	Locks map[fleet.NetworkName]int
}

// View returns the view of a snapshot, which must not change any more.
func (s Snapshot) View() View {
	x, look := NewIndex(), looks{}
	for i := range s.Workers {
		w := &s.Workers[i]
		look[w.ID] = w
		x.Worker(nil, &w.Worker)
		x.Allocation(nil, &fleet.Allocation{Worker: w.ID, Holders: w.Allocation.Holders})
	}
	for i := range s.Machines {
		x.Machine(nil, &s.Machines[i])
	}
	for i := range s.Moves {
		x.Move(nil, &s.Moves[i])
	}
	for n, k := range s.Locks {
		x.Lock(n, k)
	}
	x.Settle()
	return View{x, look}
}

// looks is the Look of a Snapshot.
type looks map[fleet.WorkerID]*Worker

func (l looks) Health(id fleet.WorkerID) Health {
	if w := l[id]; w != nil {
		return w.Health
	}
	return Down
}

func (l looks) ShutOut(id fleet.WorkerID) bool { return l[id] != nil && l[id].ShutOut }

func (l looks) Pressed(fleet.WorkerID) bool { return false }

func (l looks) VMs(id fleet.WorkerID) ([]fleet.MachineID, bool) {
	if w := l[id]; w != nil {
		return w.VMs, w.Fresh
	}
	return nil, false
}

// MoveStart is a move that should be started now.
type MoveStart struct {
	Machine fleet.MachineID
	From    fleet.WorkerID
	To      fleet.WorkerID
}

// tally is a View with this plan's own bookings applied.
type tally struct {
	View
	policy fleet.Policy
	booked map[fleet.WorkerID]booking // beyond what the view has
	// rebuilt are the nodes of the rooms that bookings have changed.
	rebuilt map[int]*room
	held    map[fleet.NetworkName]int
	starts  map[fleet.MachineID]bool
	ways    map[way]*outlook
}

// booking is what a plan's own moves change of a worker.
type booking struct {
	used    fleet.Resources
	out, in int
}

func newTally(v View, policy fleet.Policy) *tally {
	return &tally{View: v, policy: policy, booked: map[fleet.WorkerID]booking{},
		rebuilt: map[int]*room{},
		held:    map[fleet.NetworkName]int{}, starts: map[fleet.MachineID]bool{},
		ways: map[way]*outlook{}}
}

// isMoving reports whether a machine has a move that counts, or gets one by this plan.
func (t *tally) isMoving(id fleet.MachineID) bool { return t.moving[id] > 0 || t.starts[id] }

// spent reports whether as many moves are under way in the fleet as may be.
func (t *tally) spent() bool { return len(t.moves)+len(t.starts) >= t.policy.MovesFleet }

func (t *tally) spentOut(id fleet.WorkerID) bool {
	return t.out[id]+t.booked[id].out >= t.policy.MovesOut
}

func (t *tally) spentIn(e *entry) bool {
	return t.in[e.id]+t.booked[e.id].in >= t.policy.MovesIn
}

func (t *tally) isLocked(n fleet.NetworkName) bool {
	return t.locks[n]+t.held[n] >= max(t.policy.MovesPerNetwork, 1)
}

// usedWithout returns what all but one machine hold of a worker.
func (t *tally) usedWithout(e *entry, machine fleet.MachineID) fleet.Resources {
	used := e.used.Add(t.booked[e.id].used)
	if own, ok := e.holders[machine]; ok {
		used = used.Sub(own.Resources)
	}
	return used
}

// book books a move, so that the rest of the plan counts it.
func (t *tally) book(m *fleet.Machine, to *entry) MoveStart {
	from := m.Placement.Worker
	more := m.Config.Resources.Sub(to.holders[m.ID].Resources)
	b := t.booked[to.id]
	b.used, b.in = b.used.Add(more), b.in+1
	t.booked[to.id] = b
	t.bookedOn(to)
	b = t.booked[from]
	b.out++
	t.booked[from] = b
	t.held[m.Network]++
	t.starts[m.ID] = true
	return MoveStart{Machine: m.ID, From: from, To: to.id}
}
