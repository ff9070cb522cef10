package control

import (
	"container/heap"
	"context"
	"slices"
	"sync"
)

// queue holds the names of what to reconcile. One executor at a time has a name; a name that is
// added meanwhile comes again afterwards. Names are handed out in the order in which they came.
type queue struct {
	mu      sync.Mutex
	waiting []string // from head on; a heap once ordered
	head    int
	ordered bool // names are handed out in byte order, from the first that was asked for so
	dirty   map[string]bool
	running map[string]bool
	more    chan struct{} // has room for one: an executor should take a name
}

func newQueue() *queue {
	return &queue{dirty: map[string]bool{}, running: map[string]bool{},
		more: make(chan struct{}, 1)}
}

// add enqueues names; one that waits already is not added twice.
func (q *queue) add(names ...string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, n := range names {
		if q.dirty[n] {
			continue
		}
		q.dirty[n] = true
		if !q.running[n] {
			q.pushLocked(n)
		}
	}
	q.wakeLocked()
}

func (q *queue) pushLocked(name string) {
	if q.ordered {
		heap.Push((*byName)(&q.waiting), name)
		return
	}
	if q.head > 0 && len(q.waiting) == cap(q.waiting) { // moved, not grown: half of it is free
		if q.head >= len(q.waiting)/2 {
			q.waiting = slices.Delete(q.waiting, 0, q.head)
			q.head = 0
		}
	}
	q.waiting = append(q.waiting, name)
}

// popLocked returns the oldest name, or the least in byte order. There is one.
func (q *queue) popLocked(least bool) string {
	if least && !q.ordered {
		q.waiting = slices.Delete(q.waiting, 0, q.head)
		q.head, q.ordered = 0, true
		heap.Init((*byName)(&q.waiting))
	}
	if q.ordered {
		return heap.Pop((*byName)(&q.waiting)).(string)
	}
	name := q.waiting[q.head]
	q.waiting[q.head] = ""
	if q.head++; q.head == len(q.waiting) {
		q.waiting, q.head = q.waiting[:0], 0
	}
	return name
}

// byName is a heap of names.
type byName []string

func (h *byName) Len() int           { return len(*h) }
func (h *byName) Less(i, j int) bool { return (*h)[i] < (*h)[j] }
func (h *byName) Swap(i, j int)      { (*h)[i], (*h)[j] = (*h)[j], (*h)[i] }
func (h *byName) Push(x any)         { *h = append(*h, x.(string)) }
func (h *byName) Pop() any {
	last := len(*h) - 1
	name := (*h)[last]
	*h = (*h)[:last]
	return name
}

func (q *queue) wakeLocked() {
	if len(q.waiting) == q.head {
		return
	}
	select {
	case q.more <- struct{}{}:
	default:
	}
}

// take waits for a name; false when ctx ends.
func (q *queue) take(ctx context.Context) (string, bool) {
	for {
		if n, ok := q.next(false); ok {
			return n, true
		}
		select {
		case <-ctx.Done():
			return "", false
		case <-q.more:
		}
	}
}

// next returns a waiting name, without waiting: the oldest, or the least in byte order.
func (q *queue) next(least bool) (string, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == q.head {
		return "", false
	}
	n := q.popLocked(least)
	delete(q.dirty, n)
	q.running[n] = true
	q.wakeLocked()
	return n, true
}

// done gives a name back.
func (q *queue) done(name string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.running, name)
	if q.dirty[name] {
		q.pushLocked(name)
		q.wakeLocked()
	}
}
