package worker

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/x/backoff"
)

// findAcceleration finds out by what the VMs of a runtime with kernels of their own run, such as
// KVM. It does so at the start, so that reports have it before the first machine comes.
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
