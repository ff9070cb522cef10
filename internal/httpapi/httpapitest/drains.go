package httpapitest

import (
	"context"
	"fmt"
	"slices"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// StartDrain implements fleet.Drains. The drain runs until the test updates it.
func (f *Fleet) StartDrain(_ context.Context, workers []fleet.WorkerID,
	by string) (fleet.DrainView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range workers {
		w, err := f.workerLocked(id)
		if err != nil {
			return fleet.DrainView{}, err
		}
		if w.Worker.Drain != "" {
			return fleet.DrainView{},
				errs.New(errs.Conflict, "worker %q is being drained by %s", id, w.Worker.Drain).
					WithRemedy("watch it with: sluice drain watch %s", w.Worker.Drain)
		}
	}
	f.next++
	d := &fleet.DrainView{Drain: fleet.Drain{ID: fleet.DrainID(fmt.Sprintf("01DRAIN%019d", f.next)),
		Workers: workers,
		State:   fleet.DrainRunning, StartedAt: f.now, By: by}}
	for _, id := range workers {
		f.workers[id].Worker.Drain, f.workers[id].State = d.Drain.ID, fleet.WorkerDraining
	}
	f.drains[d.Drain.ID] = d
	f.mutatedLocked()
	return *d, nil
}

// Drain implements fleet.Drains.
func (f *Fleet) Drain(_ context.Context, id fleet.DrainID) (fleet.DrainView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return fleet.DrainView{}, f.fail
	}
	if d, ok := f.drains[id]; ok {
		out := *d
		out.Moves = slices.Clone(d.Moves)
		return out, nil
	}
	return fleet.DrainView{}, errs.New(errs.NotFound, "there is no drain %q", id).
		WithRemedy("see: sluice drain list")
}

// Drains implements fleet.Drains.
func (f *Fleet) Drains(context.Context) ([]fleet.DrainView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []fleet.DrainView
	for _, d := range f.drains {
		out = append(out, *d)
	}
	return out, f.fail
}

// CancelDrain implements fleet.Drains.
func (f *Fleet) CancelDrain(ctx context.Context, id fleet.DrainID) (fleet.DrainView, error) {
	if _, err := f.Drain(ctx, id); err != nil {
		return fleet.DrainView{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.drains[id]
	if d.Drain.State.Final() {
		return fleet.DrainView{}, errs.New(errs.Conflict, "drain %s has ended", id)
	}
	d.Drain.State = fleet.DrainCancelled
	f.mutatedLocked()
	return *d, nil
}
