package control

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
	"github.com/sluice-platform/sluice/internal/x/backoff"
)

// longestRest is the longest time between two ticks.
const longestRest = time.Second

// ticks calls tick until ctx ends: every Config.Tick while something waits for time to pass, and
// otherwise only when the next worker's silence would begin to count. Any change ends such a rest.
// So an idle fleet costs little, and no failure is found later.
func (c *Control) ticks(ctx context.Context) error {
	for {
		changed := c.Changed() // before the tick, so that no change is slept through
		if c.records.Loaded() {
			c.tick()
			waitForChange(ctx, changed, c.rest(c.now())-c.cfg.Tick)
		}
		if err := backoff.Sleep(ctx, c.cfg.Tick); err != nil {
			return nil
		}
	}
}

func waitForChange(ctx context.Context, changed <-chan struct{}, bound time.Duration) {
	if bound <= 0 {
		return
	}
	timer := time.NewTimer(bound)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-changed:
	case <-timer.C:
	}
}

// rest returns how long nothing needs the clock, if nothing changes; 0 where something waits for
// time to pass.
func (c *Control) rest(now time.Time) time.Duration {
	c.mu.Lock()
	again := len(c.again)
	c.mu.Unlock()
	if again > 0 || len(c.records.Unsettled()) > 0 {
		return 0
	}
	for _, d := range c.records.Drains.All() {
		if !d.Val.State.Final() {
			return 0
		}
	}
	rest := longestRest
	for _, w := range c.records.Workers.All() {
		rest = min(rest, c.obs.untilJudged(w.Val.ID, now))
	}
	return rest
}

// untilJudged returns how long the judgement of a worker can't change by silence alone.
func (o *observer) untilJudged(id fleet.WorkerID, now time.Time) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch o.healthLocked(id, now) {
	case plan.Alive:
		return max(o.getLocked(id).contact.Last.Add(o.policy.WorkerSuspect).Sub(now), 0)
	case plan.Suspect:
		return 0
	}
	return longestRest // down: only a sign of life changes that
}
