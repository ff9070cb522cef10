package httpapitest

import (
	"bytes"
	"context"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Networks implements fleet.Keys. Each network of a machine has its first key.
func (f *Fleet) Networks(context.Context) ([]fleet.NetworkView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	count := map[fleet.NetworkName]int{}
	for _, m := range f.machines {
		count[m.Machine.Network]++
	}
	out := []fleet.NetworkView{}
	for name, n := range count {
		out = append(out, fleet.NetworkView{Name: name, Key: 1, Encrypted: n})
	}
	return out, f.fail
}

// RekeyNetwork implements fleet.Keys.
func (f *Fleet) RekeyNetwork(_ context.Context,
	name fleet.NetworkName) (fleet.NetworkView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return fleet.NetworkView{}, f.fail
	}
	v := fleet.NetworkView{Name: name, Key: 2}
	for id, m := range f.machines {
		if m.Machine.Network == name {
			v.Encrypted++
			v.Waiting = append(v.Waiting, fleet.Blocker{Code: "rekey", Object: string(id),
				Detail: "soon", Since: f.now})
		}
	}
	if v.Encrypted == 0 {
		return fleet.NetworkView{}, errs.New(errs.NotFound, "there is no network %q", name).
			WithRemedy("see: sluice network list")
	}
	f.mutatedLocked()
	return v, nil
}

// DiskKey implements fleet.Keys.
func (f *Fleet) DiskKey(_ context.Context, ref string) (fleet.DiskKey, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := f.findLocked(ref)
	if err != nil {
		return fleet.DiskKey{}, err
	}
	f.mutatedLocked()
	return fleet.DiskKey{Machine: m.Machine, Key: bytes.Repeat([]byte{0xab}, 32)}, nil
}

// SetSecret implements fleet.Secrets.
func (f *Fleet) SetSecret(_ context.Context, of fleet.SecretScope, name string,
	value []byte) (fleet.Secret, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return fleet.Secret{}, f.fail
	}
	if err := fleet.CheckSecretName(name); err != nil {
		return fleet.Secret{}, err
	}
	if err := fleet.CheckSecretValue(name, value); err != nil {
		return fleet.Secret{}, err
	}
	s := fleet.Secret{SecretScope: of, Name: name, Sealed: value, Digest: "d1", SetAt: f.now}
	f.secrets[secretID(of, name)] = s
	f.mutatedLocked()
	return s, nil
}

// Secrets implements fleet.Secrets.
func (f *Fleet) Secrets(_ context.Context, of fleet.SecretScope) ([]fleet.Secret, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []fleet.Secret{}
	for _, s := range f.secrets {
		if s.SecretScope == of {
			out = append(out, s)
		}
	}
	return out, f.fail
}

func secretID(of fleet.SecretScope, name string) string {
	return string(of.Network) + "/" + string(of.App) + "/" + name
}

// SecretValue returns what a secret was set to; "" if it is not.
func (f *Fleet) SecretValue(of fleet.SecretScope, name string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return string(f.secrets[secretID(of, name)].Sealed)
}

// UnsetSecret implements fleet.Secrets.
func (f *Fleet) UnsetSecret(_ context.Context, of fleet.SecretScope, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := secretID(of, name)
	if _, ok := f.secrets[id]; !ok || f.fail != nil {
		if f.fail != nil {
			return f.fail
		}
		return errs.New(errs.NotFound, "app %s has no secret %s", of.App, name).
			WithRemedy("see: sluice secret list")
	}
	delete(f.secrets, id)
	f.mutatedLocked()
	return nil
}
