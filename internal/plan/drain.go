package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// Retry pauses after a machine's move failed and was undone, within one drain: doubled each time.
const (
	RetryFirst = 15 * time.Second
	RetryMost  = 5 * time.Minute
)

// DrainInput is what a drain is planned from.
type DrainInput struct {
	Drain fleet.Drain
	// Finished are the drain's final moves, in any order; those that failed will do.
	Finished []fleet.Move
}

// DrainPlan is what a drain does now.
type DrainPlan struct {
	Start []MoveStart
	// Blockers say what keeps the drain from its end, other than moves that are under way or next
	// in turn. Ordered by object. Since is kept from the drain's record for a blocker that was
	// there before.
	Blockers []fleet.Blocker
	// Remaining is how many machines that should run are still on the workers, moving ones
	// included.
	Remaining int
	// Moving is how many moves from or to the workers are under way.
	Moving int
	// Done: invariant 8 holds for all workers of the drain.
	Done bool
}

// Drain plans the next moves of a drain: in stable order, never more at once than the policy
// allows, and each with a target that has the capacity.
func Drain(in DrainInput, v View, policy fleet.Policy, now time.Time) DrainPlan {
	d := newDrainStep(in, v, policy, now)
	p := &d.plan
	d.oddOnes()
	d.refused()
	walk := d.readyOnes()
	d.start(walk)
	p.Moving = countMoves(v.moves, d.exclude)
	idle := p.Moving == 0 && len(p.Start) == 0
	p.Done = idle && p.Remaining == 0
	if idle && len(p.Blockers) == 0 {
		d.inTurn(walk)
	}
	for _, id := range in.Drain.Workers {
		left := leftOn(id, v, idle && len(p.Blockers) == 0)
		p.Done = p.Done && left == nil
		if left != nil && idle && len(p.Blockers) == 0 {
			d.add(left)
		}
	}
	p.Blockers = orderBlockers(p.Blockers, in.Drain.Blockers, now)
	return *p
}

// noTarget returns the blocker of a machine that no worker takes, in the words of its drain.
func noTarget(b fleet.Blocker, m *fleet.Machine, d fleet.Drain) fleet.Blocker {
	b.Detail = string(m.App) + "/" + string(m.Name) + " " + b.Detail
	if len(d.Workers) > 1 && b.Code == fleet.CodeNoCapacity {
		// The drain itself takes room away, which may be all that is missing.
		fewer := "drain fewer workers at once: sluice drain cancel " + string(d.ID)
		b.Remedy = fewer + "; or " + b.Remedy
	}
	return b
}

// failure is how often a machine's moves failed in one drain, and when last.
type failure struct {
	count int
	last  fleet.Move
}

func failures(finished []fleet.Move) map[fleet.MachineID]failure {
	all := map[fleet.MachineID]failure{}
	for _, m := range finished {
		if m.Step != fleet.StepUndone || m.Error == "" {
			continue
		}
		f := all[m.Machine]
		f.count++
		if m.FinishedAt.After(f.last.FinishedAt) || f.last.ID == "" {
			f.last = m
		}
		all[m.Machine] = f
	}
	return all
}

// notMovable returns why a machine can't start moving now, whatever the capacity elsewhere.
func notMovable(m *fleet.Machine, from fleet.WorkerID, health Health, f failure,
	now time.Time) *fleet.Blocker {
	object := "machine/" + string(m.ID)
	name := string(m.App) + "/" + string(m.Name)
	switch {
	case m.Owner != "":
		return &fleet.Blocker{Code: fleet.CodeBusy, Object: object,
			Detail: fmt.Sprintf("%s is owned by %s", name, m.Owner),
			Remedy: "wait for it, or: sluice machine status " + name}
	case health == Suspect:
		return &fleet.Blocker{Code: fleet.CodeWorkerSuspect, Object: "worker/" + string(from),
			Detail: string(from) +
				" is silent; its machines are moved once it answers or is down",
			Remedy: "check that the worker runs and reaches the server"}
	case m.Desired != fleet.DesiredStarted && health != Down:
		return &fleet.Blocker{Code: fleet.CodeStopSlow, Object: object,
			Detail: name + " is being stopped",
			Remedy: "wait for it, or: sluice machine status " + name}
	}
	if f.waits(now) {
		return f.blocker(m)
	}
	return nil
}

// waits reports whether the machine is left alone for a while after its failures.
func (f failure) waits(now time.Time) bool {
	if f.count == 0 {
		return false
	}
	wait := min(RetryFirst<<min(f.count-1, 10), RetryMost)
	return now.Before(f.last.FinishedAt.Add(wait))
}

func (f failure) blocker(m *fleet.Machine) *fleet.Blocker {
	what := "came back to"
	if len(f.last.Steps) > 0 &&
		!slices.ContainsFunc(f.last.Steps, func(s fleet.StepRecord) bool {
			return s.Step == fleet.StepStopping
		}) {
		what = "still runs on"
	}
	name := string(m.App) + "/" + string(m.Name)
	return &fleet.Blocker{Code: fleet.CodeStartFailed, Object: onMachine(m.ID),
		Detail: fmt.Sprintf("%s %s %s, because it could not be started elsewhere (failed "+
			"moves: %d): %s", name, what, f.last.From, f.count, f.last.Error),
		Remedy: "sluice machine status " + name +
			", then correct it; the drain tries again by itself"}
}

// countMoves counts the moves that go from or to one of the workers.
func countMoves(moves map[fleet.MoveID]*fleet.Move, workers map[fleet.WorkerID]string) int {
	n := 0
	for _, m := range moves {
		if workers[m.From] != "" || workers[m.To] != "" {
			n++
		}
	}
	return n
}

// leftOn returns what else than a machine that should run keeps a worker from being drained; nil if
// nothing is: no placement, no reservation, and no VM, by a report that nothing is about to
// overtake. Unless it is to be told, the first thing that is there will do.
func leftOn(id fleet.WorkerID, v View, told bool) *fleet.Blocker {
	e, object := v.workers[id], onWorker(id)
	if e == nil || e.rec == nil {
		return nil // it isn't a worker any more
	}
	if e.placed > 0 {
		if !told {
			return &fleet.Blocker{Code: fleet.CodePlaced}
		}
		m := v.Placed(id)[0]
		return &fleet.Blocker{Code: fleet.CodePlaced, Object: onMachine(m.ID),
			Remedy: "wait for it, or: sluice machine status " + string(m.ID),
			Detail: fmt.Sprintf("%s/%s (%s) is still placed on %s", m.App, m.Name, m.State, id)}
	}
	health := v.Look.Health(id)
	vms, fresh := v.Look.VMs(id)
	switch {
	case len(e.holders) > 0:
		return &fleet.Blocker{Code: fleet.CodeReserved, Object: object,
			Detail: fmt.Sprintf("%d reservations are held on %s", len(e.holders), id),
			Remedy: "wait for the operations that hold them"}
	case health == Down:
		return nil
	case len(vms) > 0:
		ids := make([]string, len(vms))
		for i, m := range vms {
			ids[i] = string(m)
		}
		slices.Sort(ids)
		return &fleet.Blocker{Code: fleet.CodeVMLeft, Object: object,
			Detail: fmt.Sprintf("%s reports a VM of %s", id, strings.Join(ids, ", ")),
			Remedy: "wait for the worker to remove it"}
	case health == Suspect || !fresh:
		return &fleet.Blocker{Code: fleet.CodeNoReport, Object: object,
			Detail: string(id) + " has not yet reported that nothing is left",
			Remedy: "check that the worker runs and reaches the server"}
	}
	return nil
}

// mostBlockers is how many blockers a drain has, so that its record has a bound.
const mostBlockers = 200

// folded returns one blocker that stands for several.
func folded(rest []fleet.Blocker) fleet.Blocker {
	more := map[string]int{}
	for _, b := range rest {
		more[b.Code]++
	}
	return fleet.Blocker{Code: fleet.CodeMore, Object: "fleet", Detail: counted(more),
		Remedy: "see to those that are named first; what is left is named then"}
}

// orderBlockers orders blockers, drops repetitions and keeps the Since of those that were there
// before.
func orderBlockers(found, before []fleet.Blocker, now time.Time) []fleet.Blocker {
	key := func(b fleet.Blocker) string { return b.Object + " " + b.Code }
	since := map[string]time.Time{}
	for _, b := range before {
		since[key(b)] = b.Since
	}
	slices.SortStableFunc(found, func(a, b fleet.Blocker) int {
		return strings.Compare(key(a), key(b))
	})
	found = slices.CompactFunc(found, func(a, b fleet.Blocker) bool { return key(a) == key(b) })
	if len(found) > mostBlockers {
		found = append(found[:mostBlockers-1:mostBlockers-1], folded(found[mostBlockers-1:]))
	}
	for i := range found {
		found[i].Since = now
		if t, ok := since[key(found[i])]; ok {
			found[i].Since = t
		}
	}
	return found
}
