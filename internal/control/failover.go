package control

import (
	"context"
	"maps"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
)

// reconcileFleet takes further what concerns no single record: machines of lost workers, machines
// that wait for capacity, tombstones that nobody needs any more, history.
func (c *Control) reconcileFleet(ctx context.Context) error {
	if err := c.failover(ctx); err != nil {
		return err
	}
	if err := c.clearTombstones(ctx); err != nil {
		return err
	}
	return c.prune(ctx)
}

func (c *Control) failover(ctx context.Context) error {
	var p plan.FailoverPlan
	c.plan(func(v plan.View) { p = plan.Failover(v, c.cfg.Policy) })
	if old := c.braked(); old != p.Brake {
		c.brake.Store(&p.Brake)
		c.log.WarnContext(ctx, "brake changed", "brake", p.Brake)
		c.broadcast()
	}
	c.mu.Lock()
	if !maps.Equal(c.waiting, p.Waiting) {
		c.waiting = p.Waiting
	}
	c.mu.Unlock()
	for _, s := range p.Start {
		m, ok := c.records.Machines.Get(s.Machine)
		if !ok || !movable(m.Val, s.From) {
			continue
		}
		if _, err := c.startMove(ctx, m,
			fleet.Move{Reason: fleet.ReasonFailover, To: s.To}); err != nil {
			return err
		}
	}
	return nil
}

// braked returns why nothing is started automatically; "" if nothing stands in the way.
func (c *Control) braked() string {
	if s := c.brake.Load(); s != nil {
		return *s
	}
	return ""
}

// clearTombstones forgets destroyed machines of which their worker has no VM any more.
func (c *Control) clearTombstones(ctx context.Context) error {
	for _, r := range c.records.Tombstones.All() {
		id := r.Val.Machine
		if _, exists := c.records.Machines.Get(id); exists {
			continue
		}
		c.refreshFeed(r.Val.Worker)
		s := c.obs.sight(r.Val.Worker, id, c.now())
		if s.Health != plan.Alive || !s.Current || s.VM != nil {
			continue
		}
		t := c.records.Begin()
		records.Delete(t, r)
		if err := t.Commit(ctx); err != nil {
			return err
		}
	}
	return nil
}
