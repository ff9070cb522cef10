package control

import (
	"context"
	"time"
)

// Garbage deletes what nothing in the pool of disks needs any more. It can be repeated, and run by
// several processes at once.
type Garbage interface {
	// Collect makes one collection, and returns what it did, for the log.
	Collect(ctx context.Context) (did string, err error)
}

// firstCollect bounds how long after its start a server collects for the first time: one that is
// restarted often collects too.
const firstCollect = 10 * time.Minute

// collects runs the collector every so often. Nothing is remembered from run to run: what a
// collection found is kept in the pool, and a run that fails is made up for by the next.
func (c *Control) collects(ctx context.Context) error {
	if c.deps.Garbage == nil || c.cfg.CollectEvery <= 0 {
		return nil
	}
	timer := time.NewTimer(min(c.cfg.CollectEvery, firstCollect))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		c.collect(ctx)
		timer.Reset(c.cfg.CollectEvery)
	}
}

// collect makes one collection, if the state was read and the fleet is well.
func (c *Control) collect(ctx context.Context) {
	if !c.records.Loaded() {
		return
	}
	if why := c.braked(); why != "" {
		c.log.InfoContext(ctx, "pool not collected", "brake", why)
		return
	}
	did, err := c.deps.Garbage.Collect(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		c.log.WarnContext(ctx, "pool not collected", "error", err, "did", did)
	default:
		c.log.InfoContext(ctx, "pool collected", "did", did)
	}
}
