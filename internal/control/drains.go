package control

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// maxDrainWorkers bounds a drain, so that cordoning all of its workers fits into one transaction.
const maxDrainWorkers = 100

// StartDrain implements fleet.Drains.
func (c *Control) StartDrain(ctx context.Context, workers []fleet.WorkerID,
	by string) (fleet.DrainView, error) {
	if err := c.ready(); err != nil {
		return fleet.DrainView{}, err
	}
	workers = slices.Clone(workers)
	slices.Sort(workers)
	workers = slices.Compact(workers)
	if len(workers) == 0 || len(workers) > maxDrainWorkers {
		return fleet.DrainView{}, errs.New(errs.Invalid, "a drain of %d workers", len(workers)).
			WithRemedy("name between 1 and %d workers", maxDrainWorkers)
	}
	var id fleet.DrainID
	err := c.try(ctx, func() error {
		var err error
		id, err = c.recordDrain(ctx, workers, by)
		return err
	})
	if err != nil {
		return fleet.DrainView{}, err
	}
	return c.Drain(ctx, id)
}

// recordDrain cordons all workers and records the drain in one transaction.
func (c *Control) recordDrain(ctx context.Context, workers []fleet.WorkerID,
	by string) (fleet.DrainID, error) {
	now := c.now()
	d := fleet.Drain{ID: fleet.DrainID(c.deps.IDs.ULID(now)), Workers: workers,
		State: fleet.DrainRunning, StartedAt: now, By: by,
		WasCordoned: map[fleet.WorkerID]bool{}}
	t := c.records.Begin()
	for _, id := range workers {
		w, err := c.knownWorker(id)
		if err != nil {
			return "", err
		}
		if w.Val.Drain != "" {
			return "", errs.New(errs.Conflict, "worker %s is being drained already, by drain %s",
				id, w.Val.Drain).
				WithRemedy("watch it: sluice drain watch %s", w.Val.Drain)
		}
		next := w.Val
		d.WasCordoned[id] = next.Cordoned
		next.Cordoned, next.Drain, next.Drained = true, d.ID, false
		if next.CordonReason == "" {
			next.CordonReason = "drain " + string(d.ID)
		}
		records.Set(t, w, next)
	}
	records.Set(t, c.records.Drains.New(d.ID), d)
	return d.ID, t.Commit(ctx)
}

// CancelDrain implements fleet.Drains. It returns at once; moves that are past their point of no
// return end on their target, the others on their source.
func (c *Control) CancelDrain(ctx context.Context, id fleet.DrainID) (fleet.DrainView, error) {
	if err := c.ready(); err != nil {
		return fleet.DrainView{}, err
	}
	err := c.try(ctx, func() error {
		d, err := c.knownDrain(id)
		if err != nil {
			return err
		}
		if d.Val.State == fleet.DrainCancelling {
			return nil
		}
		if d.Val.State.Final() {
			return errs.New(errs.Conflict, "drain %s has ended: it is %s", id, d.Val.State).
				WithRemedy("to use its workers again: sluice worker uncordon %s", d.Val.Workers[0])
		}
		next := d.Val
		next.State, next.Blockers = fleet.DrainCancelling, nil
		t := c.records.Begin()
		records.Set(t, d, next)
		return t.Commit(ctx)
	})
	if err != nil {
		return fleet.DrainView{}, err
	}
	return c.Drain(ctx, id)
}

func (c *Control) knownDrain(id fleet.DrainID) (records.Row[fleet.Drain], error) {
	d, ok := c.records.Drains.Get(id)
	if !ok {
		return d, errs.New(errs.NotFound, "there is no drain %q", id).
			WithRemedy("list them: sluice drain list")
	}
	return d, nil
}

// reconcileDrain takes a drain further: plans, starts what may start, and notes what it came to.
func (c *Control) reconcileDrain(ctx context.Context, id fleet.DrainID) error {
	d, ok := c.records.Drains.Get(id)
	if !ok || d.Val.State.Final() {
		return nil
	}
	done := c.records.DrainProgress(id)
	if d.Val.State == fleet.DrainCancelling {
		return c.cancelMoves(ctx, d, done)
	}
	var fed []fleet.WorkerID
	for _, w := range d.Val.Workers {
		if c.records.CountPlacedOn(w) == 0 {
			c.refreshFeed(w) // whether it is drained depends on whether its report is newer
			fed = append(fed, w)
		}
	}
	slices.Sort(fed)
	var p plan.DrainPlan
	c.plan(func(v plan.View) {
		in := plan.DrainInput{Drain: d.Val, Finished: done.Failed}
		p = plan.Drain(in, v, c.cfg.Policy, c.now())
	}, fed...)
	for _, s := range p.Start {
		m, ok := c.records.Machines.Get(s.Machine)
		if !ok || !movable(m.Val, s.From) {
			continue
		}
		if _, err := c.startMove(ctx, m,
			fleet.Move{Drain: id, Reason: fleet.ReasonDrain, To: s.To}); err != nil {
			return err
		}
	}
	if p.Done {
		return c.endDrain(ctx, d)
	}
	return c.noteDrain(ctx, d, done, p)
}

// noteDrain records how far a drain is, where that has changed. The moves are as they were before
// the plan counted what remains, so that no machine counts as both moved and remaining.
func (c *Control) noteDrain(ctx context.Context, d records.Row[fleet.Drain],
	done records.Progress, p plan.DrainPlan) error {
	next := d.Val
	next.Moved = done.Moved
	next.Total = max(next.Total, next.Moved+p.Remaining)
	next.Blockers = p.Blockers
	for _, mv := range done.Active {
		if mv.Blocker != nil {
			next.Blockers = append(slices.Clip(next.Blockers), *mv.Blocker)
		}
	}
	next.State = fleet.DrainRunning
	if len(p.Start) == 0 && p.Moving == 0 && len(next.Blockers) > 0 {
		next.State = fleet.DrainBlocked
	}
	if next.State == d.Val.State && next.Moved == d.Val.Moved && next.Total == d.Val.Total &&
		slices.Equal(next.Blockers, d.Val.Blockers) {
		return nil
	}
	t := c.records.Begin()
	records.Set(t, d, next)
	return t.Commit(ctx)
}

// endDrain records that the workers are drained. The transaction compares their allocations: no
// reservation has slipped in since the plan was made.
func (c *Control) endDrain(ctx context.Context, d records.Row[fleet.Drain]) error {
	t, next := c.records.Begin(), d.Val
	next.State, next.Blockers, next.FinishedAt, next.Moved = fleet.DrainDone, nil, c.now(),
		c.records.DrainProgress(d.Val.ID).Moved
	next.Total = max(next.Total, next.Moved)
	for _, id := range next.Workers {
		w, ok := c.records.Workers.Get(id)
		if !ok {
			continue
		}
		a, _ := c.records.Allocations.Get(id)
		if len(a.Val.Holders) > 0 {
			return nil
		}
		records.Expect(t, a)
		worker := w.Val
		worker.Drain, worker.Drained, worker.Cordoned = "", true, true
		records.Set(t, w, worker)
	}
	records.Set(t, d, next)
	return t.Commit(ctx)
}

// cancelMoves asks the drain's moves to turn back, and ends the drain once none is left.
func (c *Control) cancelMoves(ctx context.Context, d records.Row[fleet.Drain],
	done records.Progress) error {
	left := 0
	for _, mv := range done.Active {
		if !mv.Step.Counts() {
			continue
		}
		left++
		r, ok := c.records.Moves.Get(mv.ID)
		if !ok || r.Val.Cancel {
			continue
		}
		t := c.records.Begin()
		next := r.Val
		next.Cancel = true
		records.Set(t, r, next)
		if err := t.Commit(ctx); err != nil {
			return err
		}
	}
	if left > 0 {
		return nil
	}
	t, next := c.records.Begin(), d.Val
	next.State, next.FinishedAt, next.Moved = fleet.DrainCancelled, c.now(), done.Moved
	for _, id := range next.Workers {
		w, ok := c.records.Workers.Get(id)
		if !ok || w.Val.Drain != next.ID {
			continue
		}
		worker := w.Val
		worker.Drain, worker.Cordoned = "", next.WasCordoned[id]
		if !worker.Cordoned || worker.CordonReason == "drain "+string(next.ID) {
			worker.CordonReason = ""
		}
		records.Set(t, w, worker)
	}
	records.Set(t, d, next)
	return t.Commit(ctx)
}

// Drain implements fleet.Drains.
func (c *Control) Drain(_ context.Context, id fleet.DrainID) (fleet.DrainView, error) {
	if err := c.ready(); err != nil {
		return fleet.DrainView{}, err
	}
	d, err := c.knownDrain(id)
	if err != nil {
		return fleet.DrainView{}, err
	}
	return c.drainView(d.Val), nil
}

// Drains implements fleet.Drains; oldest first.
func (c *Control) Drains(context.Context) ([]fleet.DrainView, error) {
	if err := c.ready(); err != nil {
		return nil, err
	}
	var views []fleet.DrainView
	for _, d := range c.records.Drains.All() {
		views = append(views, c.drainView(d.Val))
	}
	return views, nil
}

func (c *Control) drainView(d fleet.Drain) fleet.DrainView {
	d.WasCordoned = maps.Clone(d.WasCordoned)
	v := fleet.DrainView{Drain: lasting(d, c.now())}
	for _, mv := range c.records.DrainMoves(d.ID) {
		v.Moves = append(v.Moves, c.moveView(mv))
	}
	return v
}

// newsAfter is how long something must have kept a drain from going on before it is told to
// anybody: what passes by itself is how a drain goes, and what it suggests would be wrong a moment
// later.
const newsAfter = time.Second

// lasting returns the drain as people see it: with the blockers that have lasted.
func lasting(d fleet.Drain, now time.Time) fleet.Drain {
	var told []fleet.Blocker
	for _, b := range d.Blockers {
		if now.Sub(b.Since) >= newsAfter {
			told = append(told, b)
		}
	}
	if d.State == fleet.DrainBlocked && len(told) == 0 {
		d.State = fleet.DrainRunning
	}
	d.Blockers = told
	return d
}

// busyWith says who owns a machine, for errors.
func busyWith(m fleet.Machine) error {
	return errs.New(errs.Conflict, "machine %s/%s is owned by %s", m.App, m.Name, m.Owner).
		WithRemedy("%s", fmt.Sprintf("wait for it: sluice machine status %s/%s", m.App,
			strings.TrimSpace(string(m.Name))))
}
