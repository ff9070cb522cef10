package worker

import (
	"context"
	"crypto/x509"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Identity is the worker's own certificate, and what it knows of others'. Safe for concurrent use.
type Identity interface {
	// Check returns whose a chain of certificates is; Denied: nobody's of this fleet.
	Check(chain []*x509.Certificate) (identity.Name, error)
	// Renewal returns when the certificate is to be renewed, from when on it is worth a warning
	// that it isn't, and when it expires.
	Renewal() (due, late, expires time.Time)
	// Renew asks the server for a new certificate, once.
	Renew(ctx context.Context) error
	// Version is that of the fleet's authority that the certificate is of.
	Version() string
}

const (
	renewRetry    = 5 * time.Second
	renewRetryMax = 10 * time.Minute
	// renewLook bounds how long a clock that was set is not noticed.
	renewLook = time.Minute
)

// wantedAuthority is the version of the fleet's authority that the server last named.
type wantedAuthority struct {
	mu      sync.Mutex
	version string
	wake    chan struct{}
}

// wantAuthority is told what the server names.
func (w *Worker) wantAuthority(version string) {
	w.wanted.mu.Lock()
	w.wanted.version = version
	w.wanted.mu.Unlock()
	select {
	case w.wanted.wake <- struct{}{}:
	default:
	}
}

// followsAuthority reports whether the certificate is of the authority that the server names.
func (w *Worker) followsAuthority() bool {
	w.wanted.mu.Lock()
	defer w.wanted.mu.Unlock()
	return w.wanted.version == "" || w.wanted.version == w.deps.Identity.Version()
}

// sleepUntilAuthority is sleep that ends when the server names an authority.
func (w *Worker) sleepUntilAuthority(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-w.wanted.wake:
	}
}

// renewLoop renews the worker's certificate in time, and at once where the fleet's authority is
// another. It says so if it can't.
func (w *Worker) renewLoop(ctx context.Context) error {
	wait := backoff.New(renewRetry, renewRetryMax)
	for ctx.Err() == nil {
		due, late, expires := w.deps.Identity.Renewal()
		left := due.Sub(w.now())
		if left > 0 {
			w.conditions.set(fleet.ConditionCertificateNotRenewed, nil)
		}
		if left > 0 && w.followsAuthority() {
			w.sleepUntilAuthority(ctx, min(left, renewLook))
			continue
		}
		err := w.deps.Identity.Renew(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			w.log.InfoContext(ctx, "the worker's certificate is renewed")
			if w.followsAuthority() {
				wait.Reset()
			} else { // it has changed again, or its version is one that we don't understand
				sleep(ctx, wait.Next())
			}
			continue
		case w.now().After(late):
			w.conditions.set(fleet.ConditionCertificateNotRenewed, errs.Wrap(errs.KindOf(err), err,
				"the certificate expires at %s and can't be renewed",
				expires.UTC().Format(time.RFC3339)))
		}
		w.log.WarnContext(ctx, "the worker's certificate could not be renewed", "error", err,
			"remedy", errs.RemedyOf(err), "expires", expires)
		// Of a short life more of the tries fall into what is left of it.
		sleep(ctx, min(wait.Next(), max(expires.Sub(w.now())/10, time.Second)))
	}
	return nil
}
