package identity_test

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/internal/identity/identitytest"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestARenewalThatFailsForTooLong: the worker was warned for days, its expired identity can still
// be read, what it shows is refused with the way back in, and a new join token is that.
func TestARenewalThatFailsForTooLong(t *testing.T) {
	var c clock
	a := identitytest.Authority(t, c.now)
	dir := t.TempDir()
	first, err := identity.Join(t.Context(), dir, identity.NewToken(a.Hash()),
		issuing(a, "w1", 3))
	if err != nil {
		t.Fatal(err)
	}
	_, late, expires := first.Renewal()
	if expires.Sub(late) < 9*24*time.Hour {
		t.Errorf("a warning from %s is late for an end at %s", late, expires)
	}
	c.set(31 * 24 * time.Hour)
	held, err := identity.Load(dir, c.now)
	if err != nil {
		t.Fatalf("the worker can't start with what has expired: %v", err)
	}
	shown := func(h *identity.Held) error {
		cert, err := h.Certificate()
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.Check([]*x509.Certificate{cert.Leaf})
		return err
	}
	if err := shown(held); !errs.Is(err, errs.Denied) ||
		!strings.Contains(err.Error(), "has expired") ||
		!strings.Contains(errs.RemedyOf(err), "sluice worker token create --name w1") {
		t.Errorf("%v; try: %s", err, errs.RemedyOf(err))
	}
	again, err := identity.Join(t.Context(), dir, identity.NewToken(a.Hash()),
		issuing(a, "w1", 4))
	if err != nil {
		t.Fatal(err)
	}
	if err := shown(again); err != nil {
		t.Errorf("after it has joined anew: %v", err)
	}
}
