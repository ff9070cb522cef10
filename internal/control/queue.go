package control

import (
	"context"
	"slices"
	"sync"
)

// queue holds the names of what to reconcile. One executor at a time has a name; a name that is
// added meanwhile comes again afterwards. Names are handed out in the order in which they came.
type queue struct {
	mu      sync.Mutex
	waiting []string
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
			q.waiting = append(q.waiting, n)
		}
	}
	q.wakeLocked()
}

func (q *queue) wakeLocked() {
	if len(q.waiting) == 0 {
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
	if len(q.waiting) == 0 {
		return "", false
	}
	i := 0
	if least {
		i = slices.Index(q.waiting, slices.Min(q.waiting))
	}
	n := q.waiting[i]
	q.waiting = slices.Delete(q.waiting, i, i+1)
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
		q.waiting = append(q.waiting, name)
		q.wakeLocked()
	}
}
