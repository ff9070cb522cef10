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
	// Finished are the drain's final moves, in any order.
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
	t := newTally(v, policy)
	p := DrainPlan{}
	tried := failures(in.Finished)
	add := func(b fleet.Blocker) { p.Blockers = append(p.Blockers, b) }
	var turn []fleet.Blocker // what would be a blocker if nothing else were under way
	exclude := map[fleet.WorkerID]string{}
	for _, w := range in.Drain.Workers {
		exclude[w] = "in the same drain"
	}
	for _, m := range byID(v.Machines) {
		if m.Placement == nil || !slices.Contains(in.Drain.Workers, m.Placement.Worker) {
			continue
		}
		if m.Desired == fleet.DesiredStarted {
			p.Remaining++
		}
		if t.moving[m.ID] {
			continue
		}
		from, _ := t.worker(m.Placement.Worker)
		if b := notMovable(m, from, tried[m.ID], now); b != nil {
			add(*b)
			continue
		}
		if m.Desired != fleet.DesiredStarted || m.State == fleet.MachineStopping ||
			m.State == fleet.MachineFailed {
			continue // its worker releases it; it is placed again when it is next started
		}
		to, blocker := t.next(m, exclude)
		switch {
		case blocker == nil:
			p.Start = append(p.Start, t.book(m, to))
		case blocker.Code == fleet.CodeNetworkLocked || blocker.Code == fleet.CodeTooManyMoves:
			turn = append(turn, *blocker)
		default:
			add(noTarget(*blocker, m, in.Drain))
		}
	}
	p.Moving = countMoves(v.Moves, in.Drain.Workers)
	idle := p.Moving == 0 && len(p.Start) == 0
	p.Done = idle && p.Remaining == 0
	if idle && len(p.Blockers) == 0 {
		p.Blockers = turn
	}
	for _, id := range in.Drain.Workers {
		left := leftOn(id, v)
		p.Done = p.Done && left == nil
		if left != nil && idle && len(p.Blockers) == 0 {
			add(*left)
		}
	}
	p.Blockers = orderBlockers(p.Blockers, in.Drain.Blockers, now)
	return p
}

// noTarget returns the blocker of a machine that no worker takes, in the words of its drain.
func noTarget(b fleet.Blocker, m fleet.Machine, d fleet.Drain) fleet.Blocker {
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
func notMovable(m fleet.Machine, from Worker, f failure, now time.Time) *fleet.Blocker {
	object := "machine/" + string(m.ID)
	name := string(m.App) + "/" + string(m.Name)
	switch {
	case m.Owner != "":
		return &fleet.Blocker{Code: fleet.CodeBusy, Object: object,
			Detail: fmt.Sprintf("%s is owned by %s", name, m.Owner),
			Remedy: "wait for it, or: sluice machine status " + name}
	case from.Health == Suspect:
		return &fleet.Blocker{Code: fleet.CodeWorkerSuspect, Object: "worker/" + string(from.ID),
			Detail: string(from.ID) +
				" is silent; its machines are moved once it answers or is down",
			Remedy: "check that the worker runs and reaches the server"}
	case m.Desired != fleet.DesiredStarted && from.Health != Down:
		return &fleet.Blocker{Code: fleet.CodeStopSlow, Object: object,
			Detail: name + " is being stopped",
			Remedy: "wait for it, or: sluice machine status " + name}
	}
	if f.count == 0 {
		return nil
	}
	wait := RetryFirst << min(f.count-1, 10)
	wait = min(wait, RetryMost)
	if next := f.last.FinishedAt.Add(wait); now.Before(next) {
		what := "came back to"
		if len(f.last.Steps) > 0 &&
			!slices.ContainsFunc(f.last.Steps, func(s fleet.StepRecord) bool {
				return s.Step == fleet.StepStopping
			}) {
			what = "still runs on"
		}
		return &fleet.Blocker{Code: fleet.CodeStartFailed, Object: object,
			Detail: fmt.Sprintf("%s %s %s, because it could not be started elsewhere (failed "+
				"moves: %d): %s", name, what, f.last.From, f.count, f.last.Error),
			Remedy: "sluice machine status " + name +
				", then correct it; the drain tries again by itself"}
	}
	return nil
}

// countMoves counts the moves that go from or to one of the workers.
func countMoves(moves []fleet.Move, workers []fleet.WorkerID) int {
	n := 0
	for _, m := range moves {
		if slices.Contains(workers, m.From) || slices.Contains(workers, m.To) {
			n++
		}
	}
	return n
}

// leftOn returns what else than a machine that should run keeps a worker from being drained; nil if
// nothing is: no placement, no reservation, and no VM, by a report that nothing is about to
// overtake.
func leftOn(id fleet.WorkerID, v View) *fleet.Blocker {
	i := slices.IndexFunc(v.Workers, func(w Worker) bool { return w.ID == id })
	if i < 0 {
		return nil // it isn't a worker any more
	}
	w, object := v.Workers[i], "worker/"+string(id)
	for _, m := range byID(v.Machines) {
		if m.Placement != nil && m.Placement.Worker == id {
			return &fleet.Blocker{Code: fleet.CodePlaced, Object: "machine/" + string(m.ID),
				Remedy: "wait for it, or: sluice machine status " + string(m.ID),
				Detail: fmt.Sprintf("%s/%s (%s) is still placed on %s", m.App, m.Name, m.State, id)}
		}
	}
	switch {
	case len(w.Allocation.Holders) > 0:
		return &fleet.Blocker{Code: fleet.CodeReserved, Object: object,
			Detail: fmt.Sprintf("%d reservations are held on %s", len(w.Allocation.Holders), id),
			Remedy: "wait for the operations that hold them"}
	case w.Health == Down:
		return nil
	case len(w.VMs) > 0:
		ids := make([]string, len(w.VMs))
		for i, m := range w.VMs {
			ids[i] = string(m)
		}
		slices.Sort(ids)
		return &fleet.Blocker{Code: fleet.CodeVMLeft, Object: object,
			Detail: fmt.Sprintf("%s reports a VM of %s", id, strings.Join(ids, ", ")),
			Remedy: "wait for the worker to remove it"}
	case w.Health == Suspect || !w.Fresh:
		return &fleet.Blocker{Code: fleet.CodeNoReport, Object: object,
			Detail: string(id) + " has not yet reported that nothing is left",
			Remedy: "check that the worker runs and reaches the server"}
	}
	return nil
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
	for i := range found {
		found[i].Since = now
		if t, ok := since[key(found[i])]; ok {
			found[i].Since = t
		}
	}
	return found
}
