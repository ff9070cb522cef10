package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/audit"
	"github.com/sluice-platform/sluice/internal/authz"
	"github.com/sluice-platform/sluice/internal/x/errhttp"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// This file has the audit log tell of who was refused, and of who joined. Anybody who reaches the
// server can be refused as often as he likes, so of that only so much is recorded one by one; the
// rest is counted.

const (
	refusedEvery = time.Minute
	refusedMost  = 10 // entries in that time
)

// refusals bounds what is recorded of calls that were refused.
type refusals struct {
	mu    sync.Mutex
	since time.Time // of the present minute
	told  int       // one by one, in it
	more  int64     // that were only counted
	last  audit.Entry
}

// take reports whether a refusal is recorded itself. Else it is counted.
func (f *refusals) take(e audit.Entry, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.Sub(f.since) >= refusedEvery {
		f.since, f.told = now, 0
	}
	if f.told < refusedMost {
		f.told++
		return true
	}
	f.more++
	f.last = e
	return false
}

// counted returns an entry for those that were only counted; false: there are none.
func (f *refusals) counted() (audit.Entry, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.more == 0 {
		return audit.Entry{}, false
	}
	e := f.last
	e.Note = fmt.Sprintf("the last of %d refused calls that weren't recorded one by one", f.more)
	f.more = 0
	return e, true
}

// noteRefused records that a call was refused whose refusal nothing else records.
func (a *API) noteRefused(r *http.Request, c *call, status int, why error) {
	if a.deps.Audit == nil || status != http.StatusUnauthorized && status != http.StatusForbidden {
		return
	}
	e := endedWith(entryOf(r, c), status)
	e.Code = string(errs.KindOf(why))
	if e.Subject == "" {
		e.Kind, e.Subject = string(authz.Anonymous), string(authz.Anonymous)
	}
	if e.Token == "" && e.Person == nil {
		e.Token = string(c.who.ID) // of one that has ended
	}
	if !a.refused.take(e, time.Now()) {
		return
	}
	if err := a.deps.Audit.End(e); err != nil {
		a.deps.Log.WarnContext(r.Context(), "a refused call not audited", "error", err)
	}
}

// countRefused records once a minute how many refused calls were only counted, until ctx ends.
func (a *API) countRefused(ctx context.Context) error {
	tick := time.NewTicker(refusedEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			a.tellCounted(context.WithoutCancel(ctx))
			return nil
		case <-tick.C:
			a.tellCounted(ctx)
		}
	}
}

func (a *API) tellCounted(ctx context.Context) {
	e, some := a.refused.counted()
	if !some {
		return
	}
	if err := a.deps.Audit.End(e); err != nil {
		a.deps.Log.WarnContext(ctx, "refused calls not audited", "error", err)
	}
}

// auditedJoin has the audit log tell of a call that hands out a certificate. One that can't be
// recorded isn't handed out: who asks again, with the same key, gets it then.
func (a *API) auditedJoin(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		rec, ok := w.(*recorder)
		if a.deps.Audit == nil || !ok {
			next(w, r)
			return
		}
		c := callOf(r)
		rec.answering = func(status int) error {
			if status >= http.StatusBadRequest {
				a.noteRefused(r, c, status, errs.New(errs.Kind(rec.code), "refused"))
				return nil
			}
			e := endedWith(entryOf(r, c), status)
			if e.Subject == "" {
				e.Kind, e.Subject = string(authz.Anonymous), string(authz.Anonymous)
			}
			return a.deps.Audit.End(e)
		}
		next(w, r)
	}
}

// statusOf is how an error is answered.
func statusOf(err error) int { return errhttp.Status(errs.KindOf(err)) }
