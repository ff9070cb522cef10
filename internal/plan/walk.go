package plan

import (
	"container/heap"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// walk goes through lists of machines as through one, ordered by id.
type walk struct {
	lists   []readyList // not gone through yet; none is empty
	dropped []readyList
	inTurn  []*fleet.Machine // gone through, and to be looked at again
}

func (w *walk) begin() { heap.Init((*byFirst)(w)) }

// next returns the next machine; nil after the last.
func (w *walk) next() *fleet.Machine {
	if len(w.lists) == 0 {
		return nil
	}
	l := &w.lists[0]
	m := l.machines[0]
	if l.machines = l.machines[1:]; len(l.machines) == 0 {
		heap.Pop((*byFirst)(w))
	} else {
		heap.Fix((*byFirst)(w), 0)
	}
	return m
}

// keep drops the rest of each list of which keep is false.
func (w *walk) keep(keep func(readyList) bool) {
	kept := w.lists[:0]
	for _, l := range w.lists {
		if keep(l) {
			kept = append(kept, l)
		} else {
			w.dropped = append(w.dropped, l)
		}
	}
	w.lists = kept
	w.begin()
}

// waiting calls f for the machines to be looked at again, and for those that were dropped.
func (w *walk) waiting(f func(*fleet.Machine)) {
	for _, m := range w.inTurn {
		f(m)
	}
	for _, l := range w.dropped {
		for _, m := range l.machines {
			f(m)
		}
	}
}

// byFirst orders a walk's lists by their first machine.
type byFirst walk

func (w *byFirst) Len() int { return len(w.lists) }

func (w *byFirst) Less(i, j int) bool {
	return w.lists[i].machines[0].ID < w.lists[j].machines[0].ID
}

func (w *byFirst) Swap(i, j int) { w.lists[i], w.lists[j] = w.lists[j], w.lists[i] }

func (w *byFirst) Push(x any) { w.lists = append(w.lists, x.(readyList)) }

func (w *byFirst) Pop() any {
	last := w.lists[len(w.lists)-1]
	w.lists = w.lists[:len(w.lists)-1]
	return last
}
