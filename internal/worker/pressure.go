package worker

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/patience"
	"github.com/sluice-platform/sluice/internal/x/pressure"
)

// pressureEvery is the interval at which the host's pressure is read.
const pressureEvery = time.Second

// mostStretch is the factor by which pressure stretches the worker's timeouts at most.
const mostStretch = 10

// hostPressure returns a function that reads this host's pressure.
func hostPressure() func() (fleet.Pressure, error) {
	meter := pressure.New()
	return func() (fleet.Pressure, error) {
		r, err := meter.Read()
		return fleet.Pressure{CPU: r.CPU, Memory: r.Memory, IO: r.IO, Load: r.Load, Cores: r.Cores},
			err
	}
}

// pressureLoop keeps the host's pressure up to date. A host on which it can't be read counts as one
// without pressure.
func (w *Worker) pressureLoop(ctx context.Context) error {
	for failed := false; ctx.Err() == nil; sleep(ctx, pressureEvery) {
		p, err := w.deps.Pressure()
		switch {
		case err == nil:
			w.pressure.Store(&p)
		case !failed:
			w.log.WarnContext(ctx, "the host doesn't tell its pressure", "error", err)
		}
		if failed = err != nil; failed {
			w.pressure.Store(nil)
		}
	}
	return nil
}

// share returns how much of the time work waits on this host, from 0 to 1.
func (w *Worker) share() float64 { return w.pressure.Load().Share() }

// patient stretches a timeout by the host's pressure.
func (w *Worker) patient(d time.Duration) time.Duration {
	return patience.Stretch(d, w.share(), mostStretch)
}
