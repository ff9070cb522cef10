package control

import (
	"context"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/seal"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// OpenSealed is for the start of a server, before anybody is served. It reads the state, and fails
// if anything in it is sealed under a key that the fleet doesn't have. What is sealed under an
// older key is sealed anew under the newest. Repeated after a crash it goes on.
func (c *Control) OpenSealed(ctx context.Context) error {
	if err := c.Refresh(ctx); err != nil {
		return err
	}
	if c.deps.Keys == nil {
		return c.nothingSealed()
	}
	// all before any: what is sealed anew must not hide that a key is missing
	for _, n := range c.records.Networks.All() {
		if len(n.Val.Keys) == 0 {
			continue
		}
		if _, err := c.openNetworkKeys(n.Val, 0); err != nil {
			return missingKey(err)
		}
	}
	for _, s := range c.records.Secrets.All() {
		if _, err := c.deps.Keys.Open(placeOfSecret(s.Val.SecretScope, s.Val.Name),
			s.Val.Sealed); err != nil {
			return missingKey(err)
		}
	}
	anew, err := c.sealAnew(ctx)
	if err != nil {
		return err
	}
	ids := c.deps.Keys.IDs()
	c.log.InfoContext(ctx, "all that is sealed is under the newest fleet key", "key", ids[0],
		"sealed_anew", anew)
	if older := ids[1:]; len(older) > 0 {
		c.log.InfoContext(ctx, "older fleet keys are not needed any more, but for older snapshots "+
			"of the state", "keys", strings.Join(older, " "))
	}
	return nil
}

// missingKey says what to do where a key of the fleet is not there.
func missingKey(err error) error {
	return errs.Wrap(errs.KindOf(err), err, "the state holds what the fleet's keys don't open").
		WithRemedy("start the server with the missing key as well: --fleet-key-file NEWEST " +
			"--fleet-key-file OLDER; without it, what it has sealed is lost, " +
			"and --start-without-keys serves the rest")
}

// nothingSealed refuses a state with sealed values where there is no key.
func (c *Control) nothingSealed() error {
	under := map[string]int{}
	for _, n := range c.records.Networks.All() {
		for _, k := range n.Val.Keys {
			under[seal.KeyOf(k.Sealed)]++
		}
	}
	for _, s := range c.records.Secrets.All() {
		under[seal.KeyOf(s.Val.Sealed)]++
	}
	var ids []string
	for id := range under {
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return nil
	}
	slices.Sort(ids)
	return missingKey(errs.New(errs.Denied,
		"keys of networks and secrets are sealed under %s, and the server was given no fleet key",
		strings.Join(ids, ", ")))
}

// sealAnew seals what is under an older key under the newest, and returns how much that was.
func (c *Control) sealAnew(ctx context.Context) (anew int, err error) {
	for _, n := range c.records.Networks.All() {
		if !slices.ContainsFunc(n.Val.Keys,
			func(k fleet.NetworkKey) bool { return !c.deps.Keys.IsNewest(k.Sealed) }) {
			continue
		}
		next := n.Val
		next.Keys = slices.Clone(n.Val.Keys)
		for i, k := range next.Keys {
			at := placeOfNetworkKey(n.Val.Name, k.Number)
			key, err := c.deps.Keys.Open(at, k.Sealed)
			if err != nil {
				return anew, err
			}
			next.Keys[i].Sealed = c.deps.Keys.Seal(at, key)
		}
		t := c.records.Begin()
		records.Set(t, n, next)
		if err := t.Commit(ctx); err != nil {
			return anew, err
		}
		anew += len(next.Keys)
	}
	for _, s := range c.records.Secrets.All() {
		if c.deps.Keys.IsNewest(s.Val.Sealed) {
			continue
		}
		at := placeOfSecret(s.Val.SecretScope, s.Val.Name)
		value, err := c.deps.Keys.Open(at, s.Val.Sealed)
		if err != nil {
			return anew, err
		}
		t, next := c.records.Begin(), s.Val
		next.Sealed, next.Digest = c.deps.Keys.Seal(at, value), c.deps.Keys.Digest(at, value)
		records.Set(t, s, next)
		if err := t.Commit(ctx); err != nil {
			return anew, err
		}
		anew++
	}
	return anew, nil
}
