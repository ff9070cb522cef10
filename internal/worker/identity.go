package worker

import (
	"context"
	"crypto/x509"
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
}

const (
	renewRetry    = 5 * time.Second
	renewRetryMax = 10 * time.Minute
	// renewLook bounds how long a clock that was set is not noticed.
	renewLook = time.Minute
)

// renewLoop renews the worker's certificate in time, and says so if it can't.
func (w *Worker) renewLoop(ctx context.Context) error {
	wait := backoff.New(renewRetry, renewRetryMax)
	for ctx.Err() == nil {
		due, late, expires := w.deps.Identity.Renewal()
		if left := due.Sub(w.now()); left > 0 {
			w.conditions.set(fleet.ConditionCertificateNotRenewed, nil)
			sleep(ctx, min(left, renewLook))
			continue
		}
		err := w.deps.Identity.Renew(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			wait.Reset()
			w.log.InfoContext(ctx, "the worker's certificate is renewed")
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
