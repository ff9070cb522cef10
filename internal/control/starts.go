package control

import (
	"strconv"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
	"github.com/sluice-platform/sluice/internal/x/patience"
)

// stuckOn returns for how long a machine's start on a worker, under a generation, has come no
// further, as far as that counts: see package patience. Ask at every reconciliation of the machine.
// While the worker is silent nothing is known, and nothing counts.
func (o *observer) stuckOn(id fleet.WorkerID, machine fleet.MachineID, gen fleet.Generation,
	now time.Time) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	w := o.getLocked(id)
	s := w.starts[machine]
	if s == nil {
		s = &startWatch{}
		if w.starts == nil {
			w.starts = map[fleet.MachineID]*startWatch{}
		}
		w.starts[machine] = s
	}
	s.asked = now
	if o.healthLocked(id, now) != plan.Alive {
		s.watch.Skip(now)
	}
	return s.watch.Look(now, strconv.FormatUint(uint64(gen), 10)+" "+w.markOf(machine), w.share())
}

// startWatch watches a machine's start on one worker.
type startWatch struct {
	watch patience.Watch
	asked time.Time
}

// rememberStarts is how long a start that nobody asks about is remembered.
const rememberStarts = time.Minute

// markOf says how far a machine is by the newest report; different marks are progress.
func (w *observed) markOf(machine fleet.MachineID) string {
	if w.report == nil {
		return ""
	}
	for i := range w.report.VMs {
		if v := &w.report.VMs[i]; v.Machine == machine {
			return strconv.FormatUint(uint64(v.Generation), 10) + " " + string(v.Phase) + " " +
				strconv.FormatInt(v.Progress, 10)
		}
	}
	return ""
}

// share is how much of the time work waits on the worker's host, as it said last.
func (w *observed) share() float64 {
	if w.report == nil {
		return 0
	}
	return w.report.Pressure.Share()
}

// calmElsewhere reports whether a worker that isn't under pressure would take the machine.
func (c *Control) calmElsewhere(need plan.Need) bool {
	need.Calm = true
	to, _ := c.place(need)
	return to != ""
}

// placeCalm chooses a worker for a machine that is started anew because its start took too long:
// one that isn't under pressure, and if there is none, any.
func (c *Control) placeCalm(need plan.Need) (fleet.WorkerID, *fleet.Blocker) {
	calm := need
	calm.Calm = true
	if to, b := c.place(calm); b == nil {
		return to, nil
	}
	return c.place(need)
}

// namedWorker returns the worker that a user asked for and on which the machine has yet to come up;
// "" where there is none, or it can't take it: it is lost, or is being emptied.
func (c *Control) namedWorker(m fleet.Machine) fleet.WorkerID {
	if m.Placement == nil || !m.Placement.Named {
		return ""
	}
	w, ok := c.records.Workers.Get(m.Placement.Worker)
	if !ok || w.Val.Drain != "" || w.Val.Drained || c.obs.health(w.Val.ID, c.now()) == plan.Down {
		return ""
	}
	return w.Val.ID
}

// excuseSilence takes a gap, in which this server's host gave it no time, off the silence of every
// worker. What they said meanwhile may still wait to be read.
func (o *observer) excuseSilence(gap time.Duration, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, w := range o.workers {
		if w.contact.Last.IsZero() {
			continue
		}
		if w.contact.Last = w.contact.Last.Add(gap); w.contact.Last.After(now) {
			w.contact.Last = now
		}
	}
}

// forgetStarts forgets starts that nobody asks about any more.
func (o *observer) forgetStarts(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, w := range o.workers {
		for id, s := range w.starts {
			if now.Sub(s.asked) > rememberStarts {
				delete(w.starts, id)
			}
		}
	}
}
