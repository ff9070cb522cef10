package cache

import "hash/maphash"

// Eviction is S3-FIFO (Yang et al., SOSP 2023): new frames wait in a small queue, and only those
// that were used again there, or come back soon after they left it, get into the main one. What is
// read once, however much of it, passes through the small queue and leaves the main one alone.
//
// A sequential reader in small steps touches one frame many times: a read that goes on where the
// last one of the frame ended is not another use.
const (
	smallShare = 10   // the small queue is a tenth of the slots
	maxUses    = 3    // counted
	maxSteps   = 4096 // looked at for one eviction; then the new frame is not kept
	none       = -1
)

// queue is a FIFO of slots, linked through them.
type queue struct {
	head, tail int32
	n          int
}

func (c *Cache) push(q *queue, i int32) {
	c.slots[i].next = none
	if q.n == 0 {
		q.head = i
	} else {
		c.slots[q.tail].next = i
	}
	q.tail = i
	q.n++
}

func (c *Cache) pop(q *queue) int32 {
	i := q.head
	q.head = c.slots[i].next
	q.n--
	return i
}

// use counts a read of n blocks from block first of a slot on.
func (s *slot) use(first, n int) {
	if first == 0 || first != int(s.end) {
		s.uses = min(s.uses+1, maxUses)
	}
	s.end = uint8(first + n)
}

// roomLocked returns a slot that is in no queue and holds nothing, or none.
func (c *Cache) roomLocked() int32 {
	if c.fresh < len(c.slots) {
		c.fresh++
		return int32(c.fresh - 1)
	}
	for range maxSteps {
		q := &c.main
		if c.small.n > len(c.slots)/smallShare || q.n == 0 {
			q = &c.small
		}
		if i := c.pop(q); c.leaveLocked(q, i) {
			return i
		}
	}
	return none
}

// leaveLocked empties a slot that was popped from q, or gives it another round and returns false.
func (c *Cache) leaveLocked(q *queue, i int32) bool {
	s := &c.slots[i]
	switch {
	case s.state == slotFree: // its content was lost
		return true
	case s.state == slotFilling:
		c.push(q, i)
		return false
	case q == &c.small && s.uses > 1:
		s.uses = 0
		c.push(&c.main, i)
		return false
	case q == &c.main && s.uses > 0:
		s.uses--
		c.push(&c.main, i)
		return false
	case q == &c.small:
		c.ghosts.add(s.key)
	}
	c.evictions.Add(1)
	c.forgetLocked(i)
	return true
}

// forgetLocked empties a slot, wherever it is queued.
func (c *Cache) forgetLocked(i int32) {
	s := &c.slots[i]
	delete(c.index, s.key)
	*s = slot{gen: s.gen + 1, next: s.next}
	c.used--
}

// ghosts remembers the keys of about as many frames as there are slots, that left the small queue.
// It may forget early and mistake one key for another, which costs a wrong guess.
type ghosts struct {
	seed  maphash.Seed
	marks []ghost
	now   uint32
	life  uint32
}

type ghost struct{ mark, at uint32 }

func newGhosts(slots int) ghosts {
	n := 1
	for n < 2*slots {
		n *= 2
	}
	return ghosts{seed: maphash.MakeSeed(), marks: make([]ghost, n),
		life: uint32(min(slots, 1<<30))}
}

func (g *ghosts) find(k Key) (*ghost, uint32) {
	h := maphash.Comparable(g.seed, k)
	return &g.marks[h&uint64(len(g.marks)-1)], uint32(h>>32) | 1 // never 0, which is an empty place
}

func (g *ghosts) add(k Key) {
	at, mark := g.find(k)
	g.now++
	*at = ghost{mark, g.now}
}

// take reports whether k left not long ago, and forgets it.
func (g *ghosts) take(k Key) bool {
	at, mark := g.find(k)
	if at.mark != mark || g.now-at.at >= g.life {
		return false
	}
	*at = ghost{}
	return true
}
