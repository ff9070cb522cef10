package control_test

import (
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestTokensOutliveTheServer: they are records. Those that ended long ago go with the next one.
func TestTokensOutliveTheServer(t *testing.T) {
	f := newFixture(t)
	now := time.Now().UTC()
	for _, token := range []fleet.Token{
		{ID: "old", Name: "a", ExpiresAt: now.Add(-31 * 24 * time.Hour)},
		{ID: "ended", Name: "a", ExpiresAt: now.Add(-time.Hour)},
		{ID: "live", Name: "a", Hash: []byte{1}, Grants: []fleet.Grant{{Verb: "read"}}}} {
		if err := f.c.CreateToken(t.Context(), token); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.c.UseTokens(t.Context(), map[fleet.TokenID]time.Time{"live": now,
		"none": now}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r, err := f.c.RevokeToken(t.Context(), "live", "me")
		if err != nil || r.RevokedBy != "me" || r.StateAt(now.Add(time.Hour)) !=
			fleet.TokenRevoked {
			t.Errorf("%+v, %v", r, err)
		}
	}
	f.serve()
	all, err := f.c.Tokens(t.Context())
	if err != nil || len(all) != 2 {
		t.Fatalf("%+v, %v", all, err)
	}
	live, err := f.c.Token("live")
	if err != nil || !live.LastUsedAt.Equal(now) || live.RevokedAt.IsZero() ||
		live.Grants[0].Verb != "read" {
		t.Errorf("%+v, %v", live, err)
	}
	if _, err := f.c.Token("old"); !errs.Is(err, errs.NotFound) {
		t.Errorf("one that ended long ago: %v", err)
	}
}

// webIn creates shop/web in a network, and doesn't start it.
func webIn(t *testing.T, f *fixture, network string) (fleet.MachineView, error) {
	t.Helper()
	return f.c.CreateMachine(t.Context(), fleet.CreateMachine{Name: "web", App: "shop",
		Network: fleet.NetworkName(network), SkipStart: true,
		Config: fleet.MachineConfig{Image: "base", Resources: fleet.Resources{
			CPUMillis: 100, MemoryMiB: 64}}})
}

// TestNamesAreOfTheirNetwork: two networks have a machine of one name, and each is found by who
// sees one of them; a name is free again when its machine is gone.
func TestNamesAreOfTheirNetwork(t *testing.T) {
	f := newFixture(t, "w1")
	in := func(network string) (fleet.MachineView, error) { return webIn(t, f, network) }
	a, err := in("prod")
	if err != nil {
		t.Fatal(err)
	}
	b, err := in("test")
	if err != nil {
		t.Fatalf("the name of another network: %v", err)
	}
	if _, err := in("prod"); !errs.Is(err, errs.Exists) {
		t.Errorf("a second in the same network: %v", err)
	}
	ofTest := func(m fleet.Machine) bool { return m.Network == "test" }
	for _, ref := range []string{"web", "shop/web", string(b.Machine.ID)} {
		m, err := f.c.Find(t.Context(), ref, ofTest)
		if err != nil || m.ID != b.Machine.ID {
			t.Errorf("%s: %v, %v", ref, m.ID, err)
		}
	}
	if _, err := f.c.Machine(t.Context(), "shop/web"); !errs.Is(err, errs.Conflict) {
		t.Errorf("a name of two: %v", err)
	}
	_, hidden := f.c.Find(t.Context(), string(a.Machine.ID), ofTest)
	_, none := f.c.Find(t.Context(), "none", ofTest)
	if !errs.Is(hidden, errs.NotFound) || !errs.Is(none, errs.NotFound) ||
		errs.RemedyOf(hidden) != errs.RemedyOf(none) {
		t.Errorf("hidden: %v, none: %v", hidden, none)
	}
	if err := f.c.DestroyMachine(t.Context(), string(b.Machine.ID)); err != nil {
		t.Fatal(err)
	}
	f.eventually("the name is free", func() bool { _, err := in("test"); return err == nil })
}

// TestNamesOfOlderReleasesCount in the network of the machine that has them, and only there.
func TestNamesOfOlderReleasesCount(t *testing.T) {
	f := newFixture(t, "w1")
	in := func(network string) (fleet.MachineView, error) { return webIn(t, f, network) }
	m, err := in("prod")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.store.Commit(t.Context(), state.Txn{Then: []state.Op{
		{Key: "fleet/names/prod/shop/web", Delete: true},
		{Key: "fleet/names/shop/web", Value: []byte(`"` + string(m.Machine.ID) + `"`)},
	}}); err != nil {
		t.Fatal(err)
	}
	f.serve()
	if _, err := in("prod"); !errs.Is(err, errs.Exists) {
		t.Errorf("a second in its network: %v", err)
	}
	if _, err := in("test"); err != nil {
		t.Errorf("one in another network: %v", err)
	}
	if err := f.c.DestroyMachine(t.Context(), "shop/web"); !errs.Is(err, errs.Conflict) {
		t.Errorf("a name of two: %v", err)
	}
	if err := f.c.DestroyMachine(t.Context(), string(m.Machine.ID)); err != nil {
		t.Fatal(err)
	}
	f.eventually("the name is free", func() bool { _, err := in("prod"); return err == nil })
	if _, err := f.store.Get(t.Context(), "fleet/names/shop/web"); !errs.Is(err, errs.NotFound) {
		t.Errorf("the older record: %v", err)
	}
}
