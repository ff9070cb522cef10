package httpapitest

import (
	"context"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// Workers implements fleet.Workers.
func (f *Fleet) Workers(context.Context) ([]fleet.WorkerView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []fleet.WorkerView
	for _, w := range f.workers {
		out = append(out, *w)
	}
	return out, f.fail
}

// Worker implements fleet.Workers.
func (f *Fleet) Worker(_ context.Context, id fleet.WorkerID) (fleet.WorkerView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w, err := f.workerLocked(id)
	if err != nil {
		return fleet.WorkerView{}, err
	}
	return *w, nil
}

func (f *Fleet) setCordon(id fleet.WorkerID, state fleet.WorkerState,
	reason string) (fleet.WorkerView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w, err := f.workerLocked(id)
	if err != nil {
		return fleet.WorkerView{}, err
	}
	w.State, w.Worker.Cordoned, w.Worker.CordonReason = state, state == fleet.WorkerCordoned, reason
	f.mutatedLocked()
	return *w, nil
}

// Cordon implements fleet.Workers.
func (f *Fleet) Cordon(_ context.Context, id fleet.WorkerID,
	reason string) (fleet.WorkerView, error) {
	return f.setCordon(id, fleet.WorkerCordoned, reason)
}

// Uncordon implements fleet.Workers.
func (f *Fleet) Uncordon(_ context.Context, id fleet.WorkerID) (fleet.WorkerView, error) {
	return f.setCordon(id, fleet.WorkerReady, "")
}
