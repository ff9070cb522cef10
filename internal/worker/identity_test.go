package worker_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// ageing is an identity whose renewal is due, and fails for as long as a test wants.
type ageing struct {
	*identity.Held

	mu      sync.Mutex
	due     time.Time
	late    time.Time
	fails   error
	renewed int
}

func (a *ageing) Renewal() (due, late, expires time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.due, a.late, time.Now().Add(10 * time.Second)
}

func (a *ageing) Renew(context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fails != nil {
		return a.fails
	}
	a.renewed++
	a.due = time.Now().Add(time.Hour)
	return nil
}

func (a *ageing) set(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
}

// TestRenewalThatFails is tried again, is a condition only once it is late, and none any more once
// it has succeeded.
func TestRenewalThatFails(t *testing.T) {
	r := newRig(t, 0)
	a := &ageing{Held: r.identity.(unrenewed).Held, due: time.Now().Add(-time.Minute),
		late:  time.Now().Add(time.Hour),
		fails: errs.New(errs.Denied, "revoked").WithRemedy("join anew")}
	r.identity = a
	r.start()
	condition := func() *fleet.Condition {
		for _, c := range r.feed.last().Conditions {
			if c.Name == fleet.ConditionCertificateNotRenewed {
				return &c
			}
		}
		return nil
	}
	r.eventually("it reports", func() bool { return len(r.feed.all()) > 5 })
	if c := condition(); c != nil {
		t.Fatalf("a first failure is a condition: %+v", c)
	}
	a.set(func() { a.late = time.Now().Add(-time.Second) })
	r.eventually("the condition is told", func() bool {
		c := condition()
		return c != nil && strings.Contains(c.Message, "revoked") && c.Remedy != ""
	})
	a.set(func() { a.fails = nil })
	r.eventually("it is renewed", func() bool { return condition() == nil })
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.renewed != 1 {
		t.Errorf("renewed %d times", a.renewed)
	}
}

// following is an identity that a renewal brings to a version of the fleet's authority.
type following struct {
	*identity.Held

	mu      sync.Mutex
	version string
	next    []string // what renewals bring, one after the other; the last stays
	renewed int
}

func (f *following) Renewal() (due, late, expires time.Time) {
	far := time.Now().Add(time.Hour)
	return far, far, far
}

func (f *following) Renew(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.renewed++
	f.version = f.next[0]
	if len(f.next) > 1 {
		f.next = f.next[1:]
	}
	return nil
}

func (f *following) Version() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.version
}

// TestAWorkerFollowsTheAuthority: it renews its certificate as soon as the server names another
// authority, although none is due, until it has what was named, and reports what it has.
func TestAWorkerFollowsTheAuthority(t *testing.T) {
	r := newRig(t, 0)
	f := &following{Held: r.identity.(unrenewed).Held, version: "v1", next: []string{"v2", "v3"}}
	r.identity = f
	r.start()
	r.eventually("it reports", func() bool { return r.feed.last().Authority == "v1" })
	for named, renewals := range map[string]int{"": 0, "v1": 0} {
		r.feed.name(named)
		r.eventually("it has heard", func() bool { return r.feed.last().Seen == r.feed.revision() })
		if f.mu.Lock(); f.renewed != renewals {
			t.Errorf("for %q it renewed %d times", named, f.renewed)
		}
		f.mu.Unlock()
	}
	r.feed.name("v2")
	r.eventually("it follows", func() bool { return r.feed.last().Authority == "v2" })
	r.feed.name("v3")
	r.eventually("it follows again", func() bool { return r.feed.last().Authority == "v3" })
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.renewed != 2 {
		t.Errorf("renewed %d times", f.renewed)
	}
}
