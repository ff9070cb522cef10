package control

import (
	"context"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// SetSecret implements fleet.Secrets.
func (c *Control) SetSecret(ctx context.Context, of fleet.SecretScope, name string,
	value []byte) (fleet.Secret, error) {
	if err := c.checkSecret(of, name); err != nil {
		return fleet.Secret{}, err
	}
	if err := fleet.CheckSecretValue(name, value); err != nil {
		return fleet.Secret{}, err
	}
	at := placeOfSecret(of, name)
	s := fleet.Secret{SecretScope: of, Name: name, Sealed: c.deps.Keys.Seal(at, value),
		Digest: c.deps.Keys.Digest(at, value), SetAt: c.now()}
	err := c.tryIn(ctx, of.Network, func() error {
		old, _ := c.records.Secrets.Get(records.SecretID(of, name))
		t := c.records.Begin()
		records.Set(t, old, s)
		if err := roomForSecret(t, s); err != nil {
			return err
		}
		if err := c.withinQuota(t); err != nil {
			return err
		}
		return t.Commit(ctx)
	})
	if err != nil {
		return fleet.Secret{}, err
	}
	c.tellOfSecret(ctx, of, name, "set")
	return s, nil
}

// roomForSecret returns nil if an app may have a secret beside its others.
func roomForSecret(t *records.Txn, s fleet.Secret) error {
	of := fleet.QuotaScope{Network: s.Network, App: s.App}
	for _, g := range t.Growth() {
		count := g.Used[fleet.QuotaSecrets] + g.Added[fleet.QuotaSecrets]
		size := g.Used[fleet.SecretBytes] + g.Added[fleet.SecretBytes]
		if g.Scope != of || count <= fleet.MaxSecrets && size <= fleet.MaxAppSecrets {
			continue
		}
		return errs.New(errs.Exhausted, "app %s would have %d secrets of %d bytes; the most are %d "+
			"of %d", s.App, count, size, fleet.MaxSecrets, fleet.MaxAppSecrets).
			WithRemedy("unset some, or keep what is long on the disks, sealed under a secret")
	}
	return nil
}

// UnsetSecret implements fleet.Secrets.
func (c *Control) UnsetSecret(ctx context.Context, of fleet.SecretScope, name string) error {
	if err := c.checkSecret(of, name); err != nil {
		return err
	}
	err := c.tryIn(ctx, of.Network, func() error {
		old, ok := c.records.Secrets.Get(records.SecretID(of, name))
		if !ok {
			return errs.New(errs.NotFound, "app %s has no secret %s in network %s", of.App, name,
				of.Network).
				WithRemedy("list them: sluice secret list --network %s --app %s", of.Network,
					of.App)
		}
		t := c.records.Begin()
		records.Delete(t, old)
		return t.Commit(ctx)
	})
	if err != nil {
		return err
	}
	c.tellOfSecret(ctx, of, name, "unset")
	return nil
}

// Secrets implements fleet.Secrets.
func (c *Control) Secrets(_ context.Context, of fleet.SecretScope) ([]fleet.Secret, error) {
	if err := c.ready(); err != nil {
		return nil, err
	}
	list := []fleet.Secret{}
	for _, s := range c.records.Secrets.All() {
		if s.Val.SecretScope == of {
			s.Val.Sealed = nil
			list = append(list, s.Val)
		}
	}
	return list, nil
}

func (c *Control) checkSecret(of fleet.SecretScope, name string) error {
	if err := c.ready(); err != nil {
		return err
	}
	if err := of.Check(); err != nil {
		return err
	}
	if err := fleet.CheckSecretName(name); err != nil {
		return err
	}
	if c.deps.Keys == nil {
		return c.needKeys()
	}
	return nil
}

// tellOfSecret notes in the history of an app's machines that a secret has changed. That the change
// itself is durable doesn't depend on it.
func (c *Control) tellOfSecret(ctx context.Context, of fleet.SecretScope,
	name, change string) {
	for _, m := range c.records.MachinesIn(of.Network, of.App) {
		if m.Desired == fleet.DesiredDestroyed {
			continue
		}
		err := c.try(ctx, func() error {
			now, ok := c.records.Machines.Get(m.ID)
			if !ok {
				return nil
			}
			t := c.records.Begin()
			records.Expect(t, now)
			info := map[string]string{"name": name, "change": change}
			if now.Val.Placement != nil {
				info["takes_effect"] = "when the machine is started next"
			}
			if err := c.events(ctx, t, m.ID, fleet.MachineEvent{State: now.Val.State,
				Event: eventSecret, Source: sourceUser, Info: info}); err != nil {
				return err
			}
			return t.Commit(ctx)
		})
		if err != nil {
			c.log.WarnContext(ctx, "a machine's history lacks that a secret has changed",
				"machine_id", string(m.ID), "error", err)
		}
	}
}
