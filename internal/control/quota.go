package control

import (
	"context"
	"maps"
	"slices"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// defaultQuota is for each network, where that has no limit of its own.
var defaultQuota = fleet.QuotaScope{Default: true}

// withinQuota refuses a decision by which a scope would use more of something than its quota lets.
// What doesn't grow is never refused. It is for what people ask: what the fleet does by itself,
// moves and failovers and restarts, makes nothing grow, and asks nobody.
func (c *Control) withinQuota(t *records.Txn) error {
	for _, g := range t.Growth() {
		limits := c.limitsOf(g.Scope, func(id string) fleet.Amounts {
			q, _ := c.records.Quotas.Get(id)
			records.Expect(t, q) // a quota that is lowered at the same time counts
			return q.Val.Limits
		})
		for _, q := range g.Scope.Quantities() {
			limit, bound := limits[q]
			if bound && g.Added[q] > 0 && g.Used[q]+g.Added[q] > limit {
				return fleet.OverQuota(g.Scope, q, limit, g.Used[q], g.Added[q])
			}
		}
	}
	return nil
}

// limitsOf returns the limits that count for a scope. read returns those of a record.
func (c *Control) limitsOf(of fleet.QuotaScope, read func(id string) fleet.Amounts) fleet.Amounts {
	limits := fleet.Amounts{}
	if of.Network != "" && of.App == "" {
		maps.Copy(limits, read(defaultQuota.ID()))
	}
	maps.Copy(limits, read(of.ID()))
	maps.DeleteFunc(limits, func(_ fleet.Quantity, n int64) bool { return n == fleet.Unlimited })
	return limits
}

func (c *Control) setLimits(id string) fleet.Amounts {
	q, _ := c.records.Quotas.Get(id)
	return q.Val.Limits
}

// Limit implements fleet.Quotas.
func (c *Control) Limit(of fleet.QuotaScope, what fleet.Quantity) (int64, bool) {
	limit, bound := c.limitsOf(of, c.setLimits)[what]
	return limit, bound
}

// Quota implements fleet.Quotas.
func (c *Control) Quota(_ context.Context, of fleet.QuotaScope) (fleet.QuotaView, error) {
	if err := c.ready(); err != nil {
		return fleet.QuotaView{}, err
	}
	if err := of.Check(); err != nil {
		return fleet.QuotaView{}, err
	}
	return c.quotaView(of), nil
}

func (c *Control) quotaView(of fleet.QuotaScope) fleet.QuotaView {
	used, _ := c.records.Usage.Get(of.ID())
	v := fleet.QuotaView{Scope: of, Own: maps.Clone(c.setLimits(of.ID())),
		Limits: c.limitsOf(of, c.setLimits), Used: maps.Clone(used.Val.Used)}
	delete(v.Used, fleet.SecretBytes)
	return v
}

// Quotas implements fleet.Quotas.
func (c *Control) Quotas(context.Context) ([]fleet.QuotaView, error) {
	if err := c.ready(); err != nil {
		return nil, err
	}
	ids := map[string]bool{}
	for _, q := range c.records.Quotas.IDs() {
		ids[q] = true
	}
	for _, u := range c.records.Usage.IDs() {
		ids[u] = true
	}
	views := []fleet.QuotaView{}
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		views = append(views, c.quotaView(fleet.ScopeOfID(id)))
	}
	return views, nil
}

// SetQuota implements fleet.Quotas.
func (c *Control) SetQuota(ctx context.Context, of fleet.QuotaScope,
	limits map[fleet.Quantity]*int64) (fleet.QuotaView, error) {
	if err := c.ready(); err != nil {
		return fleet.QuotaView{}, err
	}
	if err := of.Check(); err != nil {
		return fleet.QuotaView{}, err
	}
	err := c.try(ctx, func() error {
		row, _ := c.records.Quotas.Get(of.ID())
		next, err := row.Val.Change(of, limits)
		if err != nil {
			return err
		}
		return c.putQuota(ctx, row, next)
	})
	if err != nil {
		return fleet.QuotaView{}, err
	}
	return c.quotaView(of), nil
}

// putQuota writes a quota; one without limits is none.
func (c *Control) putQuota(ctx context.Context, row records.Row[fleet.Quota],
	next fleet.Quota) error {
	t := c.records.Begin()
	switch {
	case len(next.Limits) > 0:
		records.Set(t, row, next)
	case row.Rev != 0:
		records.Delete(t, row)
	default:
		return nil
	}
	return t.Commit(ctx)
}

// ClearQuota implements fleet.Quotas.
func (c *Control) ClearQuota(ctx context.Context, of fleet.QuotaScope) error {
	if err := c.ready(); err != nil {
		return err
	}
	if err := of.Check(); err != nil {
		return err
	}
	return c.try(ctx, func() error {
		row, ok := c.records.Quotas.Get(of.ID())
		if !ok {
			return errs.New(errs.NotFound, "%s has no quota of its own", of).
				WithRemedy("see those there are: sluice quota list")
		}
		return c.putQuota(ctx, row, fleet.Quota{})
	})
}
