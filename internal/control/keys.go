package control

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/kek"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/seal"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// needKeys says that the fleet has no key, and how it gets one.
func (c *Control) needKeys() error {
	return errs.New(errs.Unsupported, "this fleet has no key: it encrypts no disks and keeps no "+
		"secrets").
		WithRemedy("make one, (umask 077; head -c32 /dev/urandom > fleet.key), and start the " +
			"server with --fleet-key-file fleet.key")
}

// placeOfNetworkKey is where a network's key is sealed for.
func placeOfNetworkKey(name fleet.NetworkName, number uint32) seal.Place {
	return seal.Place{Kind: string(records.Networks), Name: fmt.Sprintf("%s/%d", name, number)}
}

func placeOfSecret(of fleet.SecretScope, name string) seal.Place {
	return seal.Place{Kind: string(records.Secrets), Name: records.SecretID(of, name)}
}

// newNetworkKey makes a key for a network.
func (c *Control) newNetworkKey(name fleet.NetworkName, number uint32) fleet.NetworkKey {
	var key [kek.KeyLen]byte
	_, _ = rand.Read(key[:]) // it ends the program rather than to fail
	return fleet.NetworkKey{Number: number, Made: c.now(),
		Sealed: c.deps.Keys.Seal(placeOfNetworkKey(name, number), key[:])}
}

// diskKeyOf derives the key of one machine's disk from its network's, so that a VM knows nothing
// that opens another's.
func diskKeyOf(networkKey []byte, id fleet.MachineID) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, networkKey, nil, "sluice machine disk key v1 "+string(id),
		kek.KeyLen)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "derive the key of machine %s", id)
	}
	return key, nil
}

// openNetworkKeys returns a network's keys, newest first; of one number only, unless that is 0.
func (c *Control) openNetworkKeys(n fleet.Network, only uint32) ([][]byte, error) {
	if c.deps.Keys == nil {
		return nil, c.needKeys()
	}
	var keys [][]byte
	for _, k := range n.Keys {
		if only != 0 && k.Number != only {
			continue
		}
		key, err := c.deps.Keys.Open(placeOfNetworkKey(n.Name, k.Number), k.Sealed)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errs.New(errs.Internal, "network %s has no key %d", n.Name, only)
	}
	return keys, nil
}

// diskKeys returns the keys that may open a machine's disk, newest first; of one number only,
// unless that is 0.
func (c *Control) diskKeys(m fleet.Machine, only uint32) ([][]byte, error) {
	n, _ := c.records.Networks.Get(m.Network)
	keys, err := c.openNetworkKeys(n.Val, only)
	if err != nil {
		return nil, err
	}
	for i := range keys {
		if keys[i], err = diskKeyOf(keys[i], m.ID); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// diskKEK returns what wraps the keys of a machine's disk; nil if it is in the clear.
func (c *Control) diskKEK(m fleet.Machine) (disk.KEK, error) {
	if m.DiskKey == 0 {
		return nil, nil
	}
	keys, err := c.diskKeys(m, 0)
	if err != nil {
		return nil, err
	}
	return kek.NewRing(keys...)
}

// privateOf returns what the machines of these assignments need and nobody else may know.
func (c *Control) privateOf(all []fleet.Assignment) map[fleet.MachineID]fleet.Private {
	if c.deps.Keys == nil {
		return nil
	}
	private, secrets := map[fleet.MachineID]fleet.Private{}, c.openSecrets(all)
	for _, a := range all {
		if a.Want != fleet.WantRunning && a.Want != fleet.WantPrepared {
			continue
		}
		p := fleet.Private{Secrets: secrets[scopeOf(a)]}
		if m, ok := c.records.Machines.Get(a.Machine); ok && a.Encrypted {
			var err error
			if p.DiskKeys, err = c.diskKeys(m.Val, 0); err != nil {
				c.log.Error("the keys of a disk can't be opened", "machine_id", string(a.Machine),
					"error", err)
			}
		}
		if len(p.DiskKeys) > 0 || len(p.Secrets) > 0 {
			private[a.Machine] = p
		}
	}
	if len(private) == 0 {
		return nil
	}
	return private
}

func scopeOf(a fleet.Assignment) fleet.SecretScope {
	return fleet.SecretScope{Network: a.Network, App: a.App}
}

// openSecrets returns the secrets of the assignments' machines.
func (c *Control) openSecrets(all []fleet.Assignment) map[fleet.SecretScope]map[string]string {
	open := map[fleet.SecretScope]map[string]string{}
	if c.records.Secrets.Len() == 0 {
		return open
	}
	for _, a := range all {
		open[scopeOf(a)] = map[string]string{}
	}
	for _, s := range c.records.Secrets.All() {
		of, wanted := open[s.Val.SecretScope]
		if !wanted {
			continue
		}
		value, err := c.deps.Keys.Open(placeOfSecret(s.Val.SecretScope, s.Val.Name), s.Val.Sealed)
		if err != nil {
			c.log.Error("a secret can't be opened", "network", string(s.Val.Network), "app",
				string(s.Val.App), "secret", s.Val.Name, "error", err)
			continue
		}
		of[s.Val.Name] = string(value)
	}
	return open
}

// DiskKey implements fleet.Keys.
func (c *Control) DiskKey(ctx context.Context, ref string) (fleet.DiskKey, error) {
	var out fleet.DiskKey
	_, err := c.edit(ctx, ref, func(m records.Row[fleet.Machine]) error {
		if m.Val.DiskKey == 0 {
			return errs.New(errs.Conflict, "the disk of machine %s is not encrypted", m.Val.Name).
				WithRemedy("it opens without a key")
		}
		keys, err := c.diskKeys(m.Val, m.Val.DiskKey)
		if err != nil {
			return err
		}
		t := c.records.Begin()
		records.Expect(t, m)
		if err := c.events(ctx, t, m.Val.ID, fleet.MachineEvent{State: m.Val.State,
			Event: eventDiskKey, Source: sourceUser}); err != nil {
			return err
		}
		out = fleet.DiskKey{Machine: m.Val, Key: keys[0]}
		return t.Commit(ctx)
	})
	if err != nil {
		return fleet.DiskKey{}, err
	}
	return out, nil
}
