package identity_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/internal/identity/identitytest"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func issuing(a *identity.Authority, worker string, term int64) identity.Ask {
	return func(_ context.Context, request []byte) (identity.Answer, error) {
		return a.IssueWorker(worker, term, request)
	}
}

func secret(t *testing.T, file string) {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %o", file, info.Mode().Perm())
	}
}

// TestTheAuthorityStays the same over restarts, and says what is wrong with its files.
func TestTheAuthorityStays(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "identity")
	open := func() (*identity.Authority, error) {
		return identity.OpenAuthority(identity.AuthorityConfig{Fleet: "My Fleet", Dir: dir})
	}
	first, err := open()
	if err != nil {
		t.Fatal(err)
	}
	secret(t, filepath.Join(dir, "ca.key"))
	w1 := identitytest.Worker(t, first, "w1", 1)
	again, err := open()
	if err != nil || again.Hash() != first.Hash() {
		t.Fatalf("another authority after a restart: %v", err)
	}
	cert, err := w1.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	name, err := again.Check([]*x509.Certificate{cert.Leaf})
	if err != nil || name.Fleet != "My Fleet" || name.Worker != "w1" {
		t.Errorf("%+v, %v", name, err)
	}
	ca := filepath.Join(dir, "ca.pem")
	good, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	other := identitytest.Authority(t, nil).PEM()
	// A second authority in the file is trusted, and signs nothing.
	put(t, ca, string(good)+string(other))
	both, err := open()
	if err != nil || both.Hash() != first.Hash() || len(both.PEM()) <= len(first.PEM()) {
		t.Errorf("two authorities: %v", err)
	}
	for name, broken := range map[string]string{"of another key": string(other), "no PEM": "x",
		"empty": ""} {
		put(t, ca, broken)
		if _, err := open(); !errs.Is(err, errs.Corrupt) || errs.RemedyOf(err) == "" {
			t.Errorf("a certificate %s: %v", name, err)
		}
	}
	put(t, ca, string(good))
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := open(); !errs.Is(err, errs.NotFound) || errs.RemedyOf(err) == "" {
		t.Errorf("without its key: %v", err)
	}
}

func put(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestAJoinIsRepeated with the same key, until its answer is kept.
func TestAJoinIsRepeated(t *testing.T) {
	a, dir := identitytest.Authority(t, nil), t.TempDir()
	token := identity.NewToken(a.Hash())
	var keys []string
	lost := errors.New("the worker dies")
	ask := func(fail error) identity.Ask {
		return func(ctx context.Context, request []byte) (identity.Answer, error) {
			key, err := identity.CheckRequest(request)
			if err != nil {
				return identity.Answer{}, err
			}
			keys = append(keys, key)
			answer, err := issuing(a, "w1", 5)(ctx, request)
			return answer, errors.Join(err, fail)
		}
	}
	if _, err := identity.Join(t.Context(), dir, token, ask(lost)); !errors.Is(err, lost) {
		t.Fatal(err)
	}
	secret(t, filepath.Join(dir, "join.key"))
	if _, err := identity.Load(dir, nil); !errs.Is(err, errs.NotFound) {
		t.Errorf("an identity without an answer: %v", err)
	}
	h, err := identity.Join(t.Context(), dir, token, ask(nil))
	if err != nil {
		t.Fatal(err)
	}
	if len(keys) != 2 || keys[0] != keys[1] {
		t.Errorf("asked with the keys %v", keys)
	}
	if _, err := os.Stat(filepath.Join(dir, "join.key")); err == nil {
		t.Error("the key of the join is kept twice")
	}
	secret(t, filepath.Join(dir, "identity.pem"))
	// Who died just before it was forgotten doesn't join anew with the key of before.
	held, err := os.ReadFile(filepath.Join(dir, "identity.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(held)
	put(t, filepath.Join(dir, "join.key"), string(pem.EncodeToMemory(block)))
	other := identity.NewToken(a.Hash())
	if _, err := identity.Join(t.Context(), dir, other, ask(lost)); !errors.Is(err, lost) {
		t.Fatal(err)
	}
	if last := keys[len(keys)-1]; last == keys[0] {
		t.Error("another token is spent for the key of before")
	}
	loaded, err := identity.Load(dir, nil)
	if err != nil || loaded.Name() != h.Name() || loaded.Token() != token.ID ||
		h.Name() != (identity.Name{Fleet: "test", Role: identity.Worker, Worker: "w1", Term: 5}) {
		t.Errorf("loaded %+v by token %s: %v", loaded, loaded.Token(), err)
	}
	put(t, filepath.Join(dir, "identity.pem"), "x")
	if _, err := identity.Load(dir, nil); !errs.Is(err, errs.Corrupt) ||
		errs.RemedyOf(err) == "" {
		t.Errorf("a broken file: %v", err)
	}
}

// TestRenewal comes after two thirds of a life, replaces key and certificate together, and takes no
// other name.
func TestRenewal(t *testing.T) {
	var c clock
	a := identitytest.Authority(t, c.now)
	dir := t.TempDir()
	if _, err := identity.Join(t.Context(), dir, identity.NewToken(a.Hash()),
		issuing(a, "w1", 3)); err != nil {
		t.Fatal(err)
	}
	h, err := identity.Load(dir, c.now)
	if err != nil {
		t.Fatal(err)
	}
	due, late, expires := h.Renewal()
	if d := time.Until(due) - 20*24*time.Hour; d.Abs() > time.Hour || !due.Before(late) ||
		!late.Before(expires) {
		t.Errorf("due %s, late %s, expires %s", due, late, expires)
	}
	before, _ := h.Certificate()
	if err := h.Renew(t.Context(), issuing(a, "w2", 3)); err == nil {
		t.Error("a certificate of another worker is kept")
	}
	if now, _ := h.Certificate(); now != before {
		t.Error("a refused answer changed the certificate")
	}
	c.set(21 * 24 * time.Hour)
	if err := h.Renew(t.Context(), issuing(a, "w1", 3)); err != nil {
		t.Fatal(err)
	}
	after, _ := h.Certificate()
	if after == before || after.Leaf.NotAfter.Sub(before.Leaf.NotAfter) < 20*24*time.Hour {
		t.Error("the certificate is not new")
	}
	c.set(21*24*time.Hour + 5*time.Hour)
	loaded, err := identity.Load(dir, c.now)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := loaded.Certificate(); !again.Leaf.Equal(after.Leaf) {
		t.Error("the file has another certificate")
	}
	if due, _, _ := loaded.Renewal(); due.After(c.now()) {
		t.Errorf("a process that begins with an old certificate renews it only at %s", due)
	}
	if h.Name() != loaded.Name() {
		t.Errorf("%s became %s", h.Name(), loaded.Name())
	}
}

// TestTheServersCertificate is renewed without a restart, and valid for names.
func TestTheServersCertificate(t *testing.T) {
	var c clock
	a := identitytest.Authority(t, c.now)
	s := a.Self("127.0.0.1", "control.example")
	first, err := s.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "control.example", "server.sluice"} {
		if err := first.Leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	if same, _ := s.Certificate(); same != first {
		t.Error("it is another each time")
	}
	until, err := s.Until()
	if err != nil || !until.Before(first.Leaf.NotAfter) {
		t.Errorf("until %s, %v", until, err)
	}
	for _, off := range []time.Duration{21 * 24 * time.Hour, -3 * time.Hour} {
		c.set(off)
		next, err := s.Certificate()
		if err != nil || next == first || c.now().After(next.Leaf.NotAfter) ||
			c.now().Before(next.Leaf.NotBefore) {
			t.Errorf("a clock off by %s: %v", off, err)
		}
	}
	if err := first.Leaf.VerifyHostname("worker.sluice"); err == nil ||
		!strings.Contains(err.Error(), "worker.sluice") {
		t.Errorf("the server passes for a worker: %v", err)
	}
}
