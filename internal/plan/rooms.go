package plan

import (
	"cmp"
	"math"
	"slices"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// rooms find the worker with the least allocated share without looking at all of them: a tree over
// the workers, in which each node has the best that is below it. Workers of the same size stand
// side by side, so that what a node promises is nearly what there is.
type rooms struct {
	leaves []*entry // by capacity, then by id
	nodes  []room   // nodes[1] is the root, and those of the leaves begin at first
	first  int
}

// room is the best of several workers, in each respect.
type room struct {
	used     fleet.Resources // the least; none takes machines where its CPUMillis is shut
	capacity fleet.Resources // the most
	rank     int32           // the least
	kernels  bool            // one of them gives machines kernels of their own
}

// shut is the use of a worker that takes no machines by its record.
const shut = math.MaxInt64

func newRooms(workers []*entry) rooms {
	r := rooms{leaves: slices.Clone(workers), first: 1}
	slices.SortFunc(r.leaves, func(a, b *entry) int {
		x, y := a.rec.Capacity, b.rec.Capacity
		return cmp.Or(cmp.Compare(x.CPUMillis, y.CPUMillis), cmp.Compare(x.MemoryMiB, y.MemoryMiB),
			cmp.Compare(a.rank, b.rank))
	})
	for r.first < len(r.leaves) {
		r.first *= 2
	}
	r.nodes = make([]room, 2*r.first)
	for i := range r.nodes {
		r.nodes[i].used = fleet.Resources{CPUMillis: shut, MemoryMiB: shut}
		r.nodes[i].rank = math.MaxInt32
	}
	for i, e := range r.leaves {
		e.room = i
		r.nodes[r.first+i] = roomOf(e)
	}
	for i := r.first - 1; i > 0; i-- {
		r.nodes[i] = bestOf(r.nodes[2*i], r.nodes[2*i+1])
	}
	return r
}

func roomOf(e *entry) room {
	r := room{used: e.used, capacity: e.rec.Capacity, rank: e.rank,
		kernels: fleet.IsolationVM.GivenBy(e.rec.Runtime)}
	if e.rec.Cordoned || e.rec.Drain != "" || e.rec.Drained {
		r.used = fleet.Resources{CPUMillis: shut, MemoryMiB: shut}
	}
	return r
}

func bestOf(a, b room) room {
	if a.used.CPUMillis == shut {
		return b
	}
	if b.used.CPUMillis == shut {
		return a
	}
	return room{rank: min(a.rank, b.rank), kernels: a.kernels || b.kernels,
		used: fleet.Resources{CPUMillis: min(a.used.CPUMillis, b.used.CPUMillis),
			MemoryMiB: min(a.used.MemoryMiB, b.used.MemoryMiB)},
		capacity: fleet.Resources{CPUMillis: max(a.capacity.CPUMillis, b.capacity.CPUMillis),
			MemoryMiB: max(a.capacity.MemoryMiB, b.capacity.MemoryMiB)}}
}

// changed takes in a worker's present use and record. Its capacity is what it was.
func (r *rooms) changed(e *entry) {
	i := r.first + e.room
	r.nodes[i] = roomOf(e)
	for i /= 2; i > 0; i /= 2 {
		next := bestOf(r.nodes[2*i], r.nodes[2*i+1])
		if r.nodes[i] == next {
			return
		}
		r.nodes[i] = next
	}
}

// roomAt returns a node with this plan's bookings.
func (t *tally) roomAt(i int) *room {
	if n, ok := t.rebuilt[i]; ok {
		return n
	}
	return &t.rooms.nodes[i]
}

// bookedOn takes a booking into the nodes above a worker. The index keeps its own.
func (t *tally) bookedOn(e *entry) {
	i := t.rooms.first + e.room
	n := *t.roomAt(i)
	if n.used.CPUMillis != shut {
		n.used = e.used.Add(t.booked[e.id].used)
	}
	for t.rebuilt[i] = &n; i > 1; {
		i /= 2
		up := bestOf(*t.roomAt(2 * i), *t.roomAt(2*i + 1))
		if *t.roomAt(i) == up {
			return
		}
		t.rebuilt[i] = &up
	}
}

// search looks for the worker that a machine goes to.
type search struct {
	t     *tally
	need  Need
	skip  func(*entry) bool // nil: none
	best  *entry
	share float64
}

// best returns the worker with the least allocated share, after the machine is on it; ties go to
// the smaller id. nil: none will do. skip, if set, leaves out workers that are only busy now.
func (t *tally) best(need Need, skip func(*entry) bool) *entry {
	s := search{t: t, need: need, skip: skip, share: 1}
	if need.Only != "" {
		if e := t.workers[need.Only]; e != nil {
			s.try(e)
		}
		return s.best
	}
	// What the tree knows of these is too much: the machine's own share is free for it.
	if e := t.where[need.Machine]; e != nil {
		s.try(e)
	}
	for _, e := range t.elsewhere[need.Machine] {
		s.try(e)
	}
	s.below(1)
	return s.best
}

// below looks at the workers below a node, the more promising half first, as far as they may be
// better than what was found. The share that a node promises is computed as each worker's is, from
// figures that are no worse, so it is never above one of them.
func (s *search) below(i int) {
	if !s.promises(i) {
		return
	}
	if i >= s.t.rooms.first {
		s.try(s.t.rooms.leaves[i-s.t.rooms.first])
		return
	}
	a, b := 2*i, 2*i+1
	if s.leastOf(b) < s.leastOf(a) {
		a, b = b, a
	}
	s.below(a)
	s.below(b)
}

func (s *search) promises(i int) bool {
	n := s.t.roomAt(i)
	if n.used.CPUMillis == shut || s.need.Isolation != "" && !n.kernels {
		return false
	}
	least := s.leastOf(i)
	return least < s.share || least == s.share && (s.best == nil || n.rank < s.best.rank)
}

func (s *search) leastOf(i int) float64 {
	n := s.t.roomAt(i)
	if n.used.CPUMillis == shut {
		return math.Inf(1)
	}
	return shareOf(n.used.Add(s.need.Resources), n.capacity)
}

func (s *search) try(e *entry) {
	if s.t.refused(e, s.need) != "" || s.skip != nil && s.skip(e) {
		return
	}
	share := shareOf(s.t.usedWithout(e, s.need.Machine).Add(s.need.Resources), e.rec.Capacity)
	if s.best == nil || share < s.share || share == s.share && e.rank < s.best.rank {
		s.best, s.share = e, share
	}
}

// shareOf is the larger of two shares of a capacity.
func shareOf(used, of fleet.Resources) float64 {
	return max(share(used.CPUMillis, of.CPUMillis), share(used.MemoryMiB, of.MemoryMiB))
}

func share(used, of int64) float64 {
	if of <= 0 {
		return 1
	}
	return float64(used) / float64(of)
}
