package identity_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func openAuthority(t *testing.T, dir string) *identity.Authority {
	t.Helper()
	a, err := identity.OpenAuthority(identity.AuthorityConfig{Fleet: "f", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// chainOf is what the server shows now.
func chainOf(t *testing.T, a *identity.Authority) []*x509.Certificate {
	t.Helper()
	cert, err := a.Self().Certificate()
	if err != nil {
		t.Fatal(err)
	}
	return []*x509.Certificate{cert.Leaf}
}

// TestRotation: both authorities are trusted until it is finished, a worker that renews follows
// each step, and each step may be repeated.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	a := openAuthority(t, dir)
	self := a.Self()
	renew := func(_ context.Context, request []byte) (identity.Answer, error) {
		return a.IssueWorker("w1", 1, request)
	}
	w, err := identity.Join(t.Context(), t.TempDir(), identity.NewToken(a.Hash()), renew)
	if err != nil {
		t.Fatal(err)
	}
	first, versions := a.Hash(), map[string]bool{w.Version(): true}
	oldServer := chainOf(t, a)
	for _, c := range []struct {
		step            identity.Step
		phase           identity.Phase
		certs           int
		old, takesFirst bool
	}{
		{identity.Begin, identity.Begun, 2, true, true},
		{identity.Switch, identity.Switched, 2, false, true},
		{identity.Finish, identity.Settled, 1, false, false},
	} {
		shown := w
		own, err := shown.Certificate()
		if err != nil {
			t.Fatal(err)
		}
		before := []*x509.Certificate{own.Leaf}
		for range 2 {
			if err := a.Rotate(c.step); err != nil {
				t.Fatalf("%s: %v", c.step, err)
			}
		}
		v := a.View()
		if v.Phase != c.phase || len(v.Certs) != c.certs || (a.Hash() == first) != c.old ||
			versions[v.Version] || !v.Certs[0].Signs {
			t.Fatalf("%s: %+v", c.step, v)
		}
		versions[v.Version] = true
		// What followed the step before is known on both sides, before and after it renews.
		if _, err := a.Check(before); err != nil {
			t.Errorf("%s: the worker of before isn't known: %v", c.step, err)
		}
		cert, err := self.Certificate()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Check([]*x509.Certificate{cert.Leaf}); err != nil {
			t.Errorf("%s: the server isn't known to the worker of before: %v", c.step, err)
		}
		if w.Version() == v.Version {
			t.Error("a step doesn't show in the version")
		}
		if err := w.Renew(t.Context(), renew); err != nil || w.Version() != v.Version {
			t.Fatalf("%s: renewed to %s, %v", c.step, w.Version(), err)
		}
		if _, err := w.Check(oldServer); (err == nil) != c.takesFirst {
			t.Errorf("%s: a certificate of the first authority: %v", c.step, err)
		}
		if again := openAuthority(t, dir).View(); again.Phase != c.phase ||
			again.Version != v.Version {
			t.Errorf("%s, after a restart: %+v", c.step, again)
		}
	}
	if _, err := a.Check(oldServer); !errs.Is(err, errs.Denied) {
		t.Errorf("the first authority's certificate, in the end: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "next.key")); err == nil {
		t.Error("a second key is left")
	}
}

// TestStepsOutOfOrder change nothing, and say what comes next.
func TestStepsOutOfOrder(t *testing.T) {
	dir := t.TempDir()
	a := openAuthority(t, dir)
	refused := func(step identity.Step, kind errs.Kind, tries string) {
		t.Helper()
		before := a.View()
		err := a.Rotate(step)
		if !errs.Is(err, kind) || !strings.Contains(errs.RemedyOf(err), tries) {
			t.Errorf("%s: %v; try: %s", step, err, errs.RemedyOf(err))
		}
		if a.View().Version != before.Version {
			t.Errorf("%s, which was refused, has changed something", step)
		}
	}
	before := a.View().Version
	refused("turn", errs.Invalid, "begin, switch")
	refused(identity.Switch, errs.Conflict, "rotate begin")
	if err := a.Rotate(identity.Begin); err != nil {
		t.Fatal(err)
	}
	refused(identity.Finish, errs.Conflict, "rotate switch")
	for range 2 {
		if err := a.Rotate(identity.Abort); err != nil || a.View().Version != before {
			t.Fatalf("abort: %v", err)
		}
	}
	if err := a.Rotate(identity.Begin); err != nil {
		t.Fatal(err)
	}
	if err := a.Rotate(identity.Switch); err != nil {
		t.Fatal(err)
	}
	refused(identity.Abort, errs.Conflict, "rotate finish")
	refused(identity.Begin, errs.Conflict, "rotate finish")
	own, err := identity.OpenAuthority(identity.AuthorityConfig{Fleet: "f",
		CertFile: filepath.Join(dir, "ca.pem"), KeyFile: filepath.Join(dir, "next.key")})
	if err != nil {
		t.Fatal(err)
	}
	if err := own.Rotate(identity.Begin); !errs.Is(err, errs.Unsupported) ||
		!strings.Contains(errs.RemedyOf(err), "--ca-cert") {
		t.Errorf("an authority of the operator's own: %v", err)
	}
}

// TestADeathInAStep leaves what an authority can be opened with, and the step can be taken again.
// Files are written in an order: each case is what a death between them leaves.
func TestADeathInAStep(t *testing.T) {
	for step, c := range map[identity.Step]struct {
		before []identity.Step
		kept   string // is not yet what it is to be
	}{
		identity.Begin:  {nil, "ca.pem"},
		identity.Switch: {[]identity.Step{identity.Begin}, "ca.pem"},
		identity.Finish: {[]identity.Step{identity.Begin, identity.Switch}, "next.key"},
		identity.Abort:  {[]identity.Step{identity.Begin}, "next.key"},
	} {
		t.Run(string(step), func(t *testing.T) {
			dir := t.TempDir()
			a := openAuthority(t, dir)
			for _, s := range c.before {
				if err := a.Rotate(s); err != nil {
					t.Fatal(err)
				}
			}
			before, old := a.View(), files(t, dir)
			if err := a.Rotate(step); err != nil {
				t.Fatal(err)
			}
			after := files(t, dir)
			if bytes.Equal(old[c.kept], after[c.kept]) {
				t.Fatalf("the step doesn't change %s", c.kept)
			}
			restore(t, dir, after, old, c.kept)
			again := openAuthority(t, dir)
			if p := again.View().Phase; p != before.Phase && p != a.View().Phase {
				t.Errorf("it is %s", p)
			}
			if err := again.Rotate(step); err != nil {
				t.Errorf("once more: %v", err)
			}
			v := again.View()
			if v.Phase != a.View().Phase || len(v.Certs) != len(a.View().Certs) {
				t.Errorf("in the end it is %s with %d certificates", v.Phase, len(v.Certs))
			}
			if _, err := again.Check(chainOf(t, again)); err != nil {
				t.Errorf("what it signs isn't known: %v", err)
			}
		})
	}
}

func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for _, name := range []string{"ca.pem", "ca.key", "next.key"} {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			out[name] = data
		}
	}
	return out
}

// restore puts a directory into the state in which a file, and the one that is renamed with it, is
// not yet what it is to be.
func restore(t *testing.T, dir string, after, old map[string][]byte, kept string) {
	t.Helper()
	state := map[string][]byte{"ca.pem": after["ca.pem"], "ca.key": after["ca.key"],
		"next.key": after["next.key"]}
	state[kept] = old[kept]
	if kept == "next.key" {
		state["ca.key"] = old["ca.key"]
	}
	for name, data := range state {
		file := filepath.Join(dir, name)
		if data == nil {
			_ = os.Remove(file) // it may not be there
			continue
		}
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
