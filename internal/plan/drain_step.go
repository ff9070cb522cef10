package plan

import (
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// drainStep is one call of Drain. It looks at machines one by one only where each may have
// something to say: those that are not ready, those whose moves failed, and of the ready ones as
// many as may start. For the others it is enough that there is room for what they need.
type drainStep struct {
	in      DrainInput
	t       *tally
	now     time.Time
	plan    DrainPlan
	exclude map[fleet.WorkerID]string // the drain's own workers
	tried   map[fleet.MachineID]failure
	waiting map[fleet.MachineID]bool // ready ones that are left alone for a while
	open    int                      // workers from which more may leave
}

func newDrainStep(in DrainInput, v View, policy fleet.Policy, now time.Time) *drainStep {
	d := &drainStep{in: in, t: newTally(v, policy), now: now, exclude: map[fleet.WorkerID]string{},
		tried: failures(in.Finished), waiting: map[fleet.MachineID]bool{}}
	for _, w := range in.Drain.Workers {
		d.exclude[w] = "in the same drain"
	}
	return d
}

func (d *drainStep) add(b *fleet.Blocker) { d.plan.Blockers = append(d.plan.Blockers, *b) }

func (d *drainStep) healthOf(e *entry) Health {
	if e.rec == nil {
		return ""
	}
	return d.t.Look.Health(e.id)
}

// oddOnes says why machines that aren't ready can't move. Where there is no reason their worker
// releases them; they are placed again when they are next started.
func (d *drainStep) oddOnes() {
	for _, id := range d.in.Drain.Workers {
		e := d.t.workers[id]
		if e == nil {
			continue
		}
		d.plan.Remaining += e.started
		for _, m := range e.odd {
			if d.t.isMoving(m.ID) {
				continue
			}
			if b := notMovable(m, id, d.healthOf(e), d.tried[m.ID], d.now); b != nil {
				d.add(b)
			}
		}
	}
}

// refused says which ready machines are left alone because their moves failed.
func (d *drainStep) refused() {
	for id, f := range d.tried {
		m := d.readyOn(f.last.From, id)
		for i := 0; m == nil && i < len(d.in.Drain.Workers); i++ {
			m = d.readyOn(d.in.Drain.Workers[i], id)
		}
		if m == nil || d.t.isMoving(id) || !f.waits(d.now) ||
			d.healthOf(d.t.workers[m.Placement.Worker]) == Suspect {
			continue
		}
		d.waiting[id] = true
		d.add(f.blocker(m))
	}
}

// readyOn returns a machine if it is ready on one of the drain's workers.
func (d *drainStep) readyOn(w fleet.WorkerID, id fleet.MachineID) *fleet.Machine {
	e := d.t.workers[w]
	if e == nil || d.exclude[w] == "" {
		return nil
	}
	for _, l := range e.ready {
		if i, ok := find(l.machines, id); ok {
			return l.machines[i]
		}
	}
	return nil
}

// readyOnes returns the ready machines of all workers but the silent ones, of which it says so.
func (d *drainStep) readyOnes() *walk {
	w := &walk{}
	for _, id := range d.in.Drain.Workers {
		e := d.t.workers[id]
		if e == nil || len(e.ready) == 0 {
			continue
		}
		health := d.healthOf(e)
		if health != Suspect {
			w.lists = append(w.lists, e.ready...)
			if !d.t.spentOut(id) {
				d.open++
			}
			continue
		}
		for _, l := range e.ready {
			for _, m := range l.machines {
				if !d.t.isMoving(m.ID) {
					d.add(notMovable(m, id, health, failure{}, d.now))
					break
				}
			}
		}
	}
	w.begin()
	return w
}

// start starts the moves of ready machines, in the order of their ids, as long as more may start,
// and says for which there is no room.
func (d *drainStep) start(w *walk) {
	closed := false
	for {
		if !closed && (d.t.spent() || d.open == 0) {
			// Nothing is booked any more: those for which there is room have nothing to say.
			w.keep(d.hasNoRoom())
			closed = true
		}
		m := w.next()
		if m == nil {
			return
		}
		if d.t.isMoving(m.ID) || d.waiting[m.ID] {
			continue
		}
		to, blocker := d.t.next(m, d.exclude)
		switch {
		case blocker == nil:
			d.plan.Start = append(d.plan.Start, d.t.book(m, to))
			if d.t.spentOut(m.Placement.Worker) {
				d.open--
			}
		case blocker.Code == fleet.CodeNoCapacity:
			b := noTarget(*blocker, m, d.in.Drain)
			d.add(&b)
		default:
			w.inTurn = append(w.inTurn, m)
		}
	}
}

// hasNoRoom returns whether no worker will do for the machines of a list, or for one of them. Ask
// when nothing is booked any more.
func (d *drainStep) hasNoRoom() func(readyList) bool {
	var strays []fleet.MachineID
	for id := range d.t.elsewhere {
		if e := d.t.where[id]; e != nil && d.exclude[e.id] != "" {
			strays = append(strays, id)
		}
	}
	return func(l readyList) bool {
		for _, id := range strays {
			if _, ok := find(l.machines, id); ok {
				return true
			}
		}
		_, blocker := d.t.next(l.machines[0], d.exclude)
		return blocker.Code == fleet.CodeNoCapacity
	}
}

// inTurn adds what ready machines wait for that have only to wait for others' moves.
func (d *drainStep) inTurn(w *walk) {
	locked, crowded := map[fleet.NetworkName]bool{}, false
	w.waiting(func(m *fleet.Machine) {
		switch {
		case d.t.isMoving(m.ID) || d.waiting[m.ID]:
		case !d.t.isLocked(m.Network):
			if !crowded {
				d.add(tooMany())
			}
			crowded = true
		case !locked[m.Network]:
			d.add(networkLocked(m.Network))
			locked[m.Network] = true
		}
	})
}
