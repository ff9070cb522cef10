package httpapi

import (
	"context"
	"crypto/x509"
	"net/http"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/internal/x/connlimit"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// This file is how a worker is known: by the certificate of its connection. It is looked at for
// each request, so that one that has expired or is revoked is refused at once, with a reason.

type peerKey struct{}

// peerOf returns the worker that calls; only of what is about the feed.
func peerOf(r *http.Request) fleet.WorkerID {
	id, _ := r.Context().Value(peerKey{}).(fleet.WorkerID)
	return id
}

func noPeer([]*x509.Certificate) (identity.Name, error) {
	return identity.Name{}, errs.New(errs.Unsupported, "this server knows no workers")
}

// isWorker reports whether a request comes as one of a worker: with a certificate and no token.
// What the certificate is worth is looked at by asWorker.
func isWorker(r *http.Request) bool {
	return r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && r.Header.Get("Authorization") == ""
}

func noCertificate() error {
	return errs.New(errs.Denied, "no certificate of a worker came with the request").
		WithRemedy("only the workers of this fleet call this; see: sluice worker token create")
}

// asWorker hands a request on if a worker of the fleet sent it, and of a path with a worker's name
// that worker. The request's context ends once the certificate is refused.
func (a *API) asWorker(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
	name, err := a.deps.Peer(r.TLS.PeerCertificates)
	if err == nil && name.Role != identity.Worker {
		err = errs.New(errs.Denied, "the certificate is of %s, and not of a worker", name).
			WithRemedy("call it with the certificate of a worker")
	}
	if err != nil {
		a.noteRefused(r, callOf(r), statusOf(err), err)
		writeError(w, withClock(r, err, time.Now()))
		return
	}
	id := fleet.WorkerID(name.Worker)
	if err := a.deps.Enrolment.CheckWorker(id, name.Term); err != nil {
		callOf(r).acted("worker", name.Worker)
		a.noteRefused(r, callOf(r), statusOf(err), err)
		writeError(w, err)
		return
	}
	connlimit.Known(r.Context())
	callOf(r).subject.Name = name.Worker
	if of := r.PathValue("id"); of != "" && of != name.Worker {
		a.noteRefused(r, callOf(r), http.StatusForbidden, errs.New(errs.Denied, "of another"))
		writeError(w, otherWorker(id, of))
		return
	}
	ctx, cancel := context.WithCancelCause(context.WithValue(r.Context(), peerKey{}, id))
	defer cancel(nil)
	defer a.deps.Enrolment.OnRefused(id, name.Term, func() {
		cancel(a.deps.Enrolment.CheckWorker(id, name.Term))
	})()
	next(w, r.WithContext(context.WithValue(ctx, termKey{}, name.Term)))
}

type termKey struct{}

// termOf is the term of the certificate of the worker that calls.
func termOf(r *http.Request) int64 {
	term, _ := r.Context().Value(termKey{}).(int64)
	return term
}

func otherWorker(who fleet.WorkerID, of string) error {
	return errs.New(errs.Denied, "worker %s can't speak for worker %q", who, of).
		WithRemedy("a worker's --name is the one that it joined with")
}

// minSkew is from when on a clock is worth a word.
const minSkew = time.Minute

// withClock tells a caller by how much its clock is off, if that may be why it is refused.
func withClock(r *http.Request, err error, now time.Time) error {
	said, parseErr := http.ParseTime(r.Header.Get("Date"))
	if parseErr != nil || !errs.Is(err, errs.Denied) {
		return err
	}
	off := said.Sub(now).Round(time.Second)
	switch {
	case off > minSkew:
		return errs.Wrap(errs.Denied, err, "the worker's clock is %s ahead of the server's", off).
			WithRemedy("set the clocks first; then: %s", errs.RemedyOf(err))
	case off < -minSkew:
		return errs.Wrap(errs.Denied, err, "the worker's clock is %s behind the server's", -off).
			WithRemedy("set the clocks first; then: %s", errs.RemedyOf(err))
	}
	return err
}
