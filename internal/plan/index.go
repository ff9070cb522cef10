package plan

import (
	"cmp"
	"maps"
	"slices"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// Index is what plans read of the fleet's records, kept up as they change: sums, order, counts. So
// that a plan costs what it looks at, and not what there is.
//
// Each method for a kind of record is told of every change of one: old and now are the record
// before and after, nil where there is none. It keeps what it is given, which must not be changed
// any more. After changes call Settle. Any number may read at once while nobody changes it.
type Index struct {
	workers map[fleet.WorkerID]*entry
	order   []*entry // those that have a record, by id
	rooms   rooms
	stale   bool // order and rooms are not what they should be

	where map[fleet.MachineID]*entry // on which worker a machine is placed
	// elsewhere is where else machines have shares: few, of those that move or are about to.
	elsewhere map[fleet.MachineID][]*entry
	most      int // how many elsewhere has had

	moves   map[fleet.MoveID]*fleet.Move // those that count
	moving  map[fleet.MachineID]int      // how many of them a machine has
	out, in map[fleet.WorkerID]int
	locks   map[fleet.NetworkName]int // held slots
}

// entry is a worker, with or without a record.
type entry struct {
	id      fleet.WorkerID
	rec     *fleet.Worker // nil: none
	rank    int32         // in the order of ids
	room    int           // its place among the rooms
	holders map[fleet.MachineID]fleet.Allocated
	used    fleet.Resources

	placed  int // machines
	started int // of which so many should run
	// ready machines run as far as their records say, and nobody owns them. By what they need.
	ready []readyList
	odd   []*fleet.Machine // all others that are placed here, by id
}

// class is what decides which workers will do for a machine, other than where it is.
type class struct {
	resources fleet.Resources
	isolation fleet.Isolation
}

type readyList struct {
	class    class
	machines []*fleet.Machine // by id
}

// manyElsewhere is how many machines with shares elsewhere are more than moves explain: there were
// as many when the records were read.
const manyElsewhere = 1000

// NewIndex returns an index of nothing.
func NewIndex() *Index {
	return &Index{rooms: newRooms(nil), workers: map[fleet.WorkerID]*entry{},
		where:     map[fleet.MachineID]*entry{},
		elsewhere: map[fleet.MachineID][]*entry{},
		moves:     map[fleet.MoveID]*fleet.Move{}, moving: map[fleet.MachineID]int{},
		out: map[fleet.WorkerID]int{}, in: map[fleet.WorkerID]int{},
		locks: map[fleet.NetworkName]int{}}
}

func (x *Index) entry(id fleet.WorkerID) *entry {
	e := x.workers[id]
	if e == nil {
		e = &entry{id: id}
		x.workers[id] = e
	}
	return e
}

// forget forgets a worker of which there is nothing left.
func (x *Index) forget(e *entry) {
	if e.rec == nil && e.holders == nil && e.placed == 0 {
		delete(x.workers, e.id)
	}
}

// Worker takes in a change of a worker's record.
func (x *Index) Worker(old, now *fleet.Worker) {
	if now == nil {
		e := x.entry(old.ID)
		e.rec, x.stale = nil, true
		x.forget(e)
		return
	}
	e := x.entry(now.ID)
	x.stale = x.stale || e.rec == nil || e.rec.Capacity != now.Capacity
	e.rec = now
	x.roomChanged(e)
}

// Allocation takes in a change of who holds a worker's capacity.
func (x *Index) Allocation(old, now *fleet.Allocation) {
	var before, after map[fleet.MachineID]fleet.Allocated
	var e *entry
	if old != nil {
		e, before = x.entry(old.Worker), old.Holders
	}
	if now != nil {
		e, after = x.entry(now.Worker), now.Holders
	}
	for id := range before {
		if _, still := after[id]; !still {
			x.leaves(id, e)
		}
	}
	e.holders, e.used = after, fleet.Resources{}
	for id, share := range after {
		e.used = e.used.Add(share.Resources)
		if _, already := before[id]; !already {
			x.comes(id, e)
		}
	}
	x.roomChanged(e)
	x.forget(e)
}

// comes notes a share of a machine that isn't on the worker.
func (x *Index) comes(id fleet.MachineID, e *entry) {
	if x.where[id] != e {
		x.elsewhere[id] = append(x.elsewhere[id], e)
		x.most = max(x.most, len(x.elsewhere))
	}
}

func (x *Index) leaves(id fleet.MachineID, e *entry) {
	rest := x.elsewhere[id]
	if i := slices.Index(rest, e); i >= 0 {
		rest = slices.Delete(rest, i, i+1)
	}
	if len(rest) == 0 {
		delete(x.elsewhere, id)
		return
	}
	x.elsewhere[id] = rest
}

// Machine takes in a change of a machine's record.
func (x *Index) Machine(old, now *fleet.Machine) {
	if e := x.where[idOf(old)]; e != nil {
		e.count(old, -1)
		e.take(old)
		delete(x.where, old.ID)
		if _, holds := e.holders[old.ID]; holds {
			x.comes(old.ID, e)
		}
		x.forget(e)
	}
	if now != nil && now.Placement != nil {
		e := x.entry(now.Placement.Worker)
		e.count(now, 1)
		e.put(now)
		x.where[now.ID] = e
		x.leaves(now.ID, e)
	}
}

func idOf(m *fleet.Machine) fleet.MachineID {
	if m == nil {
		return ""
	}
	return m.ID
}

func (e *entry) count(m *fleet.Machine, by int) {
	e.placed += by
	if m.Desired == fleet.DesiredStarted {
		e.started += by
	}
}

// put adds a machine to the list that it belongs to.
func (e *entry) put(m *fleet.Machine) {
	if !isReady(m) {
		e.odd = with(e.odd, m)
		return
	}
	i := e.listOf(classOf(m))
	if i < 0 {
		i = len(e.ready)
		e.ready = append(e.ready, readyList{class: classOf(m)})
	}
	e.ready[i].machines = with(e.ready[i].machines, m)
}

// take takes a machine out of the list that it belongs to.
func (e *entry) take(m *fleet.Machine) {
	if !isReady(m) {
		e.odd = without(e.odd, m.ID)
		return
	}
	i := e.listOf(classOf(m))
	e.ready[i].machines = without(e.ready[i].machines, m.ID)
	if len(e.ready[i].machines) == 0 {
		e.ready = slices.Delete(e.ready, i, i+1)
	}
}

func (e *entry) listOf(c class) int {
	return slices.IndexFunc(e.ready, func(l readyList) bool { return l.class == c })
}

// isReady reports whether a placed machine's record has nothing against its being moved.
func isReady(m *fleet.Machine) bool {
	return m.Owner == "" && m.Desired == fleet.DesiredStarted &&
		m.State != fleet.MachineStopping && m.State != fleet.MachineFailed
}

func classOf(m *fleet.Machine) class { return class{m.Config.Resources, m.Config.Isolation} }

func with(list []*fleet.Machine, m *fleet.Machine) []*fleet.Machine {
	i, had := find(list, m.ID)
	if had {
		list[i] = m
		return list
	}
	return slices.Insert(list, i, m)
}

func without(list []*fleet.Machine, id fleet.MachineID) []*fleet.Machine {
	if i, had := find(list, id); had {
		return slices.Delete(list, i, i+1)
	}
	return list
}

func find(list []*fleet.Machine, id fleet.MachineID) (int, bool) {
	return slices.BinarySearchFunc(list, id, func(m *fleet.Machine, id fleet.MachineID) int {
		return cmp.Compare(m.ID, id)
	})
}

// Move takes in a change of a move's record.
func (x *Index) Move(old, now *fleet.Move) {
	if old != nil && old.Step.Counts() {
		x.countMove(old, -1)
		delete(x.moves, old.ID)
	}
	if now != nil && now.Step.Counts() {
		x.countMove(now, 1)
		x.moves[now.ID] = now
	}
}

func (x *Index) countMove(mv *fleet.Move, by int) {
	count(x.moving, mv.Machine, by)
	count(x.out, mv.From, by)
	if mv.To != "" {
		count(x.in, mv.To, by)
	}
}

// Lock takes in that so many slots more of a network's lock are held.
func (x *Index) Lock(network fleet.NetworkName, by int) { count(x.locks, network, by) }

func count[K comparable](m map[K]int, k K, by int) {
	if m[k] += by; m[k] == 0 {
		delete(m, k)
	}
}

// Locked returns how many slots of a network's lock are held.
func (x *Index) Locked(network fleet.NetworkName) int { return x.locks[network] }

// CountPlaced returns how many machines are placed on a worker.
func (x *Index) CountPlaced(id fleet.WorkerID) int {
	if e := x.workers[id]; e != nil {
		return e.placed
	}
	return 0
}

// Placed returns the machines placed on a worker, ordered by id.
func (x *Index) Placed(id fleet.WorkerID) []*fleet.Machine {
	e := x.workers[id]
	if e == nil {
		return nil
	}
	all := make([]*fleet.Machine, 0, e.placed)
	all = append(all, e.odd...)
	for _, l := range e.ready {
		all = append(all, l.machines...)
	}
	slices.SortFunc(all, func(a, b *fleet.Machine) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Settle makes the order of workers what it should be, after workers have come or gone or changed
// their size.
func (x *Index) Settle() {
	if x.most > manyElsewhere && len(x.elsewhere) < x.most/4 {
		few := make(map[fleet.MachineID][]*entry, len(x.elsewhere)) // gives the room back
		maps.Copy(few, x.elsewhere)
		x.elsewhere, x.most = few, len(few)
	}
	if !x.stale {
		return
	}
	x.stale = false
	x.order = x.order[:0]
	for _, e := range x.workers {
		if e.rec != nil {
			x.order = append(x.order, e)
		}
	}
	slices.SortFunc(x.order, func(a, b *entry) int { return cmp.Compare(a.id, b.id) })
	for i, e := range x.order {
		e.rank = int32(i)
	}
	x.rooms = newRooms(x.order)
}

func (x *Index) roomChanged(e *entry) {
	if !x.stale && e.rec != nil {
		x.rooms.changed(e)
	}
}
