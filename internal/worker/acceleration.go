package worker

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/x/backoff"
)

// findAcceleration has the runtime find out what its VMs run by, where they have a kernel of their
// own: at the start, so that it is known, and shown, before the first machine comes.
func (w *Worker) findAcceleration(ctx context.Context) error {
	driver, ok := w.deps.Driver.(runtime.Accelerated)
	if !ok {
		return nil
	}
	wait := backoff.New(time.Second, time.Minute)
	for ctx.Err() == nil {
		a, err := driver.Acceleration(ctx, w.cfg.ReleaseDir)
		if err == nil {
			w.acceleration.Store(&a)
			w.changed()
			return nil
		}
		w.log.WarnContext(ctx, "acceleration of VMs is not known", "error", err)
		sleep(ctx, wait.Next())
	}
	return nil
}
