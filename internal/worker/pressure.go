package worker

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/patience"
	"github.com/sluice-platform/sluice/internal/x/pressure"
)

// pressureEvery is how often the host is asked how much of the time work waits on it.
const pressureEvery = time.Second

// mostStretch bounds how much pressure stretches what the worker waits for.
const mostStretch = 10

// hostPressure asks this host.
func hostPressure() func() (fleet.Pressure, error) {
	meter := pressure.New()
	return func() (fleet.Pressure, error) {
		r, err := meter.Read()
		return fleet.Pressure{CPU: r.CPU, Memory: r.Memory, IO: r.IO, Load: r.Load, Cores: r.Cores},
			err
	}
}

// pressureLoop keeps what is known of the host's pressure up to date. A host that doesn't tell is
// taken for one without any.
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

// share is how much of the time work waits on this host.
func (w *Worker) share() float64 { return w.pressure.Load().Share() }

// patient returns how long to wait for what takes that long on a host without pressure.
func (w *Worker) patient(d time.Duration) time.Duration {
	return patience.Stretch(d, w.share(), mostStretch)
}
