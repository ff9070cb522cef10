package records

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
)

// indices find records by something else than their ids, and keep the sums and counts that plans
// are made from. Guarded by the lock of Records.
type indices struct {
	plan *plan.Index
	// moves that are not final, by machine
	active map[fleet.MachineID]map[fleet.MoveID]*fleet.Move
	drains map[fleet.DrainID]*drainIndex
	names  names
	// restless machines are those whose record alone says that something is to happen or be
	// awaited.
	restless map[fleet.MachineID]bool
	stamps   stamps
}

// drainIndex is the moves of one drain.
type drainIndex struct {
	all    map[fleet.MoveID]bool
	active map[fleet.MoveID]bool   // not final
	failed map[fleet.MoveID]bool   // undone, with an error
	away   map[fleet.MachineID]int // how many moves have brought a machine away
}

func newIndices() indices {
	return indices{
		plan:     plan.NewIndex(),
		active:   map[fleet.MachineID]map[fleet.MoveID]*fleet.Move{},
		drains:   map[fleet.DrainID]*drainIndex{},
		names:    newNames(),
		restless: map[fleet.MachineID]bool{},
		stamps:   stamps{of: map[fleet.WorkerID]int64{}},
	}
}

func (x *indices) machine(_ string, old, now *fleet.Machine) {
	if now != nil {
		share(now)
	}
	x.plan.Machine(old, now)
	x.stamps.machine(old, now)
	x.names.change(old, now)
	if old != nil {
		x.stamps.moves(x.active[old.ID])
		delete(x.restless, old.ID)
	}
	if now == nil {
		return
	}
	x.stamps.moves(x.active[now.ID])
	if !steady(*now) {
		x.restless[now.ID] = true
	}
}

func (x *indices) worker(id string, old, now *fleet.Worker) {
	x.plan.Worker(old, now)
	x.stamps.worker(fleet.WorkerID(id), old, now)
}

func (x *indices) allocation(_ string, old, now *fleet.Allocation) { x.plan.Allocation(old, now) }

func (x *indices) lock(id string, old, now *fleet.MoveID) {
	network, _, _ := strings.Cut(id, "/")
	switch {
	case old == nil:
		x.plan.Lock(fleet.NetworkName(network), 1)
	case now == nil:
		x.plan.Lock(fleet.NetworkName(network), -1)
	}
}

func (x *indices) move(_ string, old, now *fleet.Move) {
	x.plan.Move(old, now)
	x.stamps.move(old)
	x.stamps.move(now)
	if old != nil {
		delete(x.active[old.Machine], old.ID)
		if len(x.active[old.Machine]) == 0 {
			delete(x.active, old.Machine)
		}
	}
	if now != nil && !now.Step.Final() {
		if x.active[now.Machine] == nil {
			x.active[now.Machine] = map[fleet.MoveID]*fleet.Move{}
		}
		x.active[now.Machine][now.ID] = now
	}
	if old != nil && old.Drain != "" {
		x.drains[old.Drain].move(old, false)
		if len(x.drains[old.Drain].all) == 0 {
			delete(x.drains, old.Drain)
		}
	}
	if now != nil && now.Drain != "" {
		d := x.drains[now.Drain]
		if d == nil {
			d = &drainIndex{all: map[fleet.MoveID]bool{}, active: map[fleet.MoveID]bool{},
				failed: map[fleet.MoveID]bool{}, away: map[fleet.MachineID]int{}}
			x.drains[now.Drain] = d
		}
		d.move(now, true)
	}
}

// move adds a move of the drain, or takes it out.
func (d *drainIndex) move(mv *fleet.Move, add bool) {
	in := func(set map[fleet.MoveID]bool, member bool) {
		if delete(set, mv.ID); add && member {
			set[mv.ID] = true
		}
	}
	in(d.all, true)
	in(d.active, !mv.Step.Final())
	in(d.failed, mv.Step == fleet.StepUndone && mv.Error != "")
	if !mv.Step.BroughtAway() {
		return
	}
	if add {
		d.away[mv.Machine]++
	} else if d.away[mv.Machine]--; d.away[mv.Machine] == 0 {
		delete(d.away, mv.Machine)
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

// Plan calls f with what plans read, as of one moment. It must not call Records, nor keep the
// index.
func (r *Records) Plan(f func(*plan.Index)) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	f(r.indices.plan)
}

// PlacedOn returns the machines placed on a worker, ordered by id.
func (r *Records) PlacedOn(w fleet.WorkerID) []*fleet.Machine {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.indices.plan.Placed(w)
}

// CountPlacedOn returns how many machines are placed on a worker.
func (r *Records) CountPlacedOn(w fleet.WorkerID) int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.indices.plan.CountPlaced(w)
}

// ActiveMoves returns the moves that are not final, ordered by id; of all machines where machine is
// "".
func (r *Records) ActiveMoves(machine fleet.MachineID) []Row[fleet.Move] {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var list []Row[fleet.Move]
	add := func(ids map[fleet.MoveID]*fleet.Move) {
		for id := range ids {
			list = append(list, *r.Moves.rows[id])
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
	d := r.indices.drains[id]
	if d == nil {
		return nil
	}
	return r.movesLocked(d.all)
}

// movesLocked returns moves, oldest first.
func (r *Records) movesLocked(ids map[fleet.MoveID]bool) []fleet.Move {
	list := make([]fleet.Move, 0, len(ids))
	for id := range ids {
		list = append(list, r.Moves.rows[id].Val)
	}
	slices.SortFunc(list, func(a, b fleet.Move) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// Progress is how far the moves of a drain are.
type Progress struct {
	Active []fleet.Move // not final, oldest first
	Failed []fleet.Move // undone, with an error; oldest first
	Moved  int          // machines that have been brought away
}

// DrainProgress returns how far the moves of a drain are.
func (r *Records) DrainProgress(id fleet.DrainID) Progress {
	r.mu.RLock()
	defer r.mu.RUnlock()
	d := r.indices.drains[id]
	if d == nil {
		return Progress{}
	}
	return Progress{Active: r.movesLocked(d.active), Failed: r.movesLocked(d.failed),
		Moved: len(d.away)}
}

// HeldLocks counts the held slots of a network's lock.
func (r *Records) HeldLocks(network fleet.NetworkName) int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.indices.plan.Locked(network)
}

// LockOf returns the lock slot that a move holds; false if it holds none.
func (r *Records) LockOf(mv fleet.Move) (Row[fleet.MoveID], bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	prefix := string(mv.Network) + "/"
	for id, row := range r.Locks.rows {
		if row.Val == mv.ID && strings.HasPrefix(id, prefix) {
			return *row, true
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

// network is told of changes, as what workers are told in private depends on them.
func (x *indices) network(string, *fleet.Network, *fleet.Network) { x.stamps.sealed++ }

func (x *indices) secret(string, *fleet.Secret, *fleet.Secret) { x.stamps.sealed++ }

func (x *indices) identity(_ string, old, now *fleet.WorkerIdentity) {
	was, is := old != nil && old.IsRevoked(), now != nil && now.IsRevoked()
	if was != is {
		x.stamps.stale = true
	}
}
