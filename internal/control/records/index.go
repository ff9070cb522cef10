package records

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// indices find records by something else than their ids. Guarded by the lock of Records.
type indices struct {
	placed  map[fleet.WorkerID]map[fleet.MachineID]bool // machines by the worker of their placement
	active  map[fleet.MachineID]map[fleet.MoveID]bool   // moves that are not final, by machine
	ofDrain map[fleet.DrainID]map[fleet.MoveID]bool     // all moves of a drain
	named   map[fleet.MachineName]map[fleet.MachineID]bool
	// restless machines are those whose record alone says that something is to happen or be
	// awaited.
	restless map[fleet.MachineID]bool
}

func newIndices() indices {
	return indices{
		placed:   map[fleet.WorkerID]map[fleet.MachineID]bool{},
		active:   map[fleet.MachineID]map[fleet.MoveID]bool{},
		ofDrain:  map[fleet.DrainID]map[fleet.MoveID]bool{},
		named:    map[fleet.MachineName]map[fleet.MachineID]bool{},
		restless: map[fleet.MachineID]bool{},
	}
}

func (x *indices) machine(old, now *fleet.Machine) {
	if old != nil {
		if old.Placement != nil {
			drop(x.placed, old.Placement.Worker, old.ID)
		}
		delete(x.restless, old.ID)
		drop(x.named, old.Name, old.ID)
	}
	if now == nil {
		return
	}
	include(x.named, now.Name, now.ID)
	if now.Placement != nil {
		include(x.placed, now.Placement.Worker, now.ID)
	}
	if !steady(*now) {
		x.restless[now.ID] = true
	}
}

func (x *indices) move(old, now *fleet.Move) {
	if old != nil {
		drop(x.active, old.Machine, old.ID)
		drop(x.ofDrain, old.Drain, old.ID)
	}
	if now == nil {
		return
	}
	if !now.Step.Final() {
		include(x.active, now.Machine, now.ID)
	}
	if now.Drain != "" {
		include(x.ofDrain, now.Drain, now.ID)
	}
}

func include[K, V comparable](m map[K]map[V]bool, k K, v V) {
	if m[k] == nil {
		m[k] = map[V]bool{}
	}
	m[k][v] = true
}

func drop[K, V comparable](m map[K]map[V]bool, k K, v V) {
	delete(m[k], v)
	if len(m[k]) == 0 {
		delete(m, k)
	}
}

// steady reports whether, as far as the record goes, nothing is to happen to a machine as time goes
// by.
func steady(m fleet.Machine) bool {
	if m.Owner != "" {
		return false
	}
	if m.Placement == nil {
		return m.Desired == fleet.DesiredStopped &&
			(m.State == fleet.MachineStopped || m.State == fleet.MachineCreated)
	}
	return m.Desired == fleet.DesiredStarted && m.State == fleet.MachineStarted
}

// PlacedOn returns the machines placed on any of the workers, ordered by id.
func (r *Records) PlacedOn(workers ...fleet.WorkerID) []fleet.Machine {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var list []fleet.Machine
	for _, w := range workers {
		for id := range r.indices.placed[w] {
			list = append(list, r.Machines.rows[id].Val)
		}
	}
	slices.SortFunc(list, func(a, b fleet.Machine) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// Named returns the machines of that name in all apps and networks, ordered by id.
func (r *Records) Named(name fleet.MachineName) []Row[fleet.Machine] {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var list []Row[fleet.Machine]
	for id := range r.indices.named[name] {
		list = append(list, r.Machines.rows[id])
	}
	slices.SortFunc(list,
		func(a, b Row[fleet.Machine]) int { return cmp.Compare(a.Val.ID, b.Val.ID) })
	return list
}

// ActiveMoves returns the moves that are not final, ordered by id; of all machines where machine is
// "".
func (r *Records) ActiveMoves(machine fleet.MachineID) []Row[fleet.Move] {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var list []Row[fleet.Move]
	add := func(ids map[fleet.MoveID]bool) {
		for id := range ids {
			list = append(list, r.Moves.rows[id])
		}
	}
	if machine != "" {
		add(r.indices.active[machine])
	} else {
		for _, ids := range r.indices.active {
			add(ids)
		}
	}
	slices.SortFunc(list, func(a, b Row[fleet.Move]) int { return cmp.Compare(a.Val.ID, b.Val.ID) })
	return list
}

// DrainMoves returns all moves of a drain, oldest first.
func (r *Records) DrainMoves(id fleet.DrainID) []fleet.Move {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var list []fleet.Move
	for mv := range r.indices.ofDrain[id] {
		list = append(list, r.Moves.rows[mv].Val)
	}
	slices.SortFunc(list, func(a, b fleet.Move) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// HeldLocks counts the held slots of each network's lock.
func (r *Records) HeldLocks() map[fleet.NetworkName]int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	held := map[fleet.NetworkName]int{}
	for id := range r.Locks.rows {
		network, _, _ := strings.Cut(id, "/")
		held[fleet.NetworkName(network)]++
	}
	return held
}

// LockOf returns the lock slot that a move holds; false if it holds none.
func (r *Records) LockOf(mv fleet.Move) (Row[fleet.MoveID], bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	prefix := string(mv.Network) + "/"
	for id, row := range r.Locks.rows {
		if row.Val == mv.ID && strings.HasPrefix(id, prefix) {
			return row, true
		}
	}
	return Row[fleet.MoveID]{}, false
}

// Unsettled returns the machines that are to be reconciled now and then, ordered by id.
func (r *Records) Unsettled() []fleet.MachineID {
	r.mu.RLock()
	defer r.mu.RUnlock()
	ids := map[fleet.MachineID]bool{}
	maps.Copy(ids, r.indices.restless)
	for id := range r.indices.active {
		ids[id] = true
	}
	return slices.Sorted(maps.Keys(ids))
}

// Around is what concerns one worker, as of one moment.
type Around struct {
	Worker     fleet.Worker
	Machines   map[fleet.MachineID]fleet.Machine // placed on it, moving from or to it, or asked for
	Moves      []fleet.Move                      // not final, from or to it
	Tombstones map[fleet.MachineID]Tombstone     // of those asked for
	Others     []fleet.Worker                    // all but it and revoked ones, ordered by id
}

// Around returns what concerns a worker, and these machines; false if there is no such worker.
func (r *Records) Around(id fleet.WorkerID, reported []fleet.MachineID) (Around, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	w, ok := r.Workers.rows[id]
	if !ok {
		return Around{}, false
	}
	a := Around{Worker: w.Val, Machines: map[fleet.MachineID]fleet.Machine{},
		Tombstones: map[fleet.MachineID]Tombstone{}}
	take := func(m fleet.MachineID) {
		if row, ok := r.Machines.rows[m]; ok {
			a.Machines[m] = row.Val
		}
	}
	for m := range r.indices.placed[id] {
		take(m)
	}
	for _, m := range reported {
		take(m)
		if tomb, ok := r.Tombstones.rows[m]; ok {
			a.Tombstones[m] = tomb.Val
		}
	}
	for m, moves := range r.indices.active {
		for mv := range moves {
			if move := r.Moves.rows[mv].Val; move.From == id || move.To == id {
				a.Moves = append(a.Moves, move)
				take(m)
			}
		}
	}
	for _, other := range r.Workers.rows {
		if other.Val.ID != id && !r.Identities.rows[other.Val.ID].Val.IsRevoked() {
			a.Others = append(a.Others, other.Val)
		}
	}
	slices.SortFunc(a.Others, func(x, y fleet.Worker) int { return cmp.Compare(x.ID, y.ID) })
	return a, true
}
