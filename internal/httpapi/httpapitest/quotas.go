package httpapitest

import (
	"context"
	"maps"
	"slices"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Quota implements fleet.Quotas. Limits are shown, and nothing is refused but by who asks for them.
func (f *Fleet) Quota(_ context.Context, of fleet.QuotaScope) (fleet.QuotaView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.quotaLocked(of), f.fail
}

func (f *Fleet) quotaLocked(of fleet.QuotaScope) fleet.QuotaView {
	v := fleet.QuotaView{Scope: of, Own: maps.Clone(f.quotas[of].Limits), Limits: fleet.Amounts{},
		Used: fleet.Amounts{}}
	if of.Network != "" && of.App == "" {
		maps.Copy(v.Limits, f.quotas[fleet.QuotaScope{Default: true}].Limits)
	}
	maps.Copy(v.Limits, v.Own)
	for _, m := range f.machines {
		if slices.Contains(fleet.QuotaScopes(m.Machine.Network, m.Machine.App), of) {
			v.Used.Add(m.Machine.Uses(f.images[m.Machine.Config.Image].SizeBytes), 1)
		}
	}
	for _, s := range f.secrets {
		if slices.Contains(fleet.QuotaScopes(s.Network, s.App), of) {
			v.Used.Add(fleet.Amounts{fleet.QuotaSecrets: 1}, 1)
		}
	}
	return v
}

// Quotas implements fleet.Quotas.
func (f *Fleet) Quotas(context.Context) ([]fleet.QuotaView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	scopes := map[string]fleet.QuotaScope{}
	for of := range f.quotas {
		scopes[of.ID()] = of
	}
	for _, m := range f.machines {
		for _, of := range fleet.QuotaScopes(m.Machine.Network, m.Machine.App) {
			scopes[of.ID()] = of
		}
	}
	for _, s := range f.secrets {
		for _, of := range fleet.QuotaScopes(s.Network, s.App) {
			scopes[of.ID()] = of
		}
	}
	views := []fleet.QuotaView{}
	for _, id := range slices.Sorted(maps.Keys(scopes)) {
		views = append(views, f.quotaLocked(scopes[id]))
	}
	return views, f.fail
}

// SetQuota implements fleet.Quotas.
func (f *Fleet) SetQuota(_ context.Context, of fleet.QuotaScope,
	limits map[fleet.Quantity]*int64) (fleet.QuotaView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next, err := f.quotas[of].Change(of, limits)
	if err != nil || f.fail != nil {
		return fleet.QuotaView{}, firstOf(f.fail, err)
	}
	f.quotas[of] = next
	f.mutatedLocked()
	return f.quotaLocked(of), nil
}

func firstOf(all ...error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}

// ClearQuota implements fleet.Quotas.
func (f *Fleet) ClearQuota(_ context.Context, of fleet.QuotaScope) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.quotas[of]; !ok || f.fail != nil {
		return firstOf(f.fail, errs.New(errs.NotFound, "%s has no quota of its own", of))
	}
	delete(f.quotas, of)
	f.mutatedLocked()
	return nil
}

// Limit implements fleet.Quotas.
func (f *Fleet) Limit(of fleet.QuotaScope, what fleet.Quantity) (int64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	limit, bound := f.quotaLocked(of).Limits[what]
	return limit, bound && limit != fleet.Unlimited
}
