package httpapi

import (
	"net/http"
	"time"

	"github.com/sluice-platform/sluice/internal/authz"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/connlimit"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// about is what a route's calls are about, by which a request's object is found.
type about string

// What routes are about.
const (
	aboutNothing about = "public"  // health, and the API's own description: without a token
	aboutMetrics about = "metrics" // those of the whole fleet
	aboutFleet   about = "fleet"   // workers, drains, images
	aboutFeed    about = "feed"    // what workers ask
	aboutMachine about = "machine" // the one that {ref} names
	aboutMove    about = "move"    // the one that {id} names, of a machine
	// aboutSome: the call looks at each thing that it lists or makes, with sees or mayDo.
	aboutSome about = "some"
)

// authorize wraps a handler so that only those reach it who have a verb on what the call is about.
// It is the only place where that is decided, but for what a body or a list names (see aboutSome).
func (a *API) authorize(need authz.Verb, of about, next http.HandlerFunc) http.HandlerFunc {
	if of == aboutNothing {
		return next
	}
	return func(w http.ResponseWriter, r *http.Request) {
		c := callOf(r)
		who, err := a.callers.who(r)
		c.subject, c.who, c.person = who.subject, who.token, who.person
		if err != nil {
			if of == aboutFeed && r.Header.Get("Authorization") == "" {
				err = noCertificate()
			}
			if errs.Is(err, errs.Denied) {
				a.noteRefused(r, c, http.StatusUnauthorized, err)
				w.Header().Set("WWW-Authenticate", `Bearer realm="sluice"`)
				writeErrorStatus(w, http.StatusUnauthorized, err)
				return
			}
			writeError(w, err)
			return
		}
		if rec, ok := w.(*recorder); ok {
			rec.seesFleet = c.subject.Kind == authz.Worker ||
				refusal(c.subject, authz.Read, authz.Object{Class: authz.Fleet}) == nil
		}
		leave, err := a.use.enter(c.who, time.Now())
		if err != nil {
			tooMuch(w, err)
			return
		}
		defer leave()
		if a.audited(r, of) {
			end, err := a.beginAudit(w, r, c)
			if err != nil {
				writeError(w, err)
				return
			}
			defer end()
		}
		if err := a.decide(r, c, need, of); err != nil {
			if !a.auditRefusedExec(r, c, err) && !a.audited(r, of) {
				a.noteRefused(r, c, statusOf(err), err)
			}
			writeError(w, err)
			return
		}
		if of == aboutFeed {
			a.asWorker(w, r, next)
			return
		}
		if c.subject.Kind != authz.Worker { // whose certificate nobody has looked at here
			connlimit.Known(r.Context())
		}
		ctx, cancel := a.running.add(r.Context(), a.end(*c, need))
		defer cancel()
		next(w, r.WithContext(ctx))
	}
}

// decide returns why a call is refused; nil: it is allowed. What the caller may not know of is told
// in the same words as what isn't there.
func (a *API) decide(r *http.Request, c *call, need authz.Verb, of about) error {
	c.object = authz.Object{Class: classOf(of)}
	// Who has the verb nowhere is told so whatever exists.
	if err := refusal(c.subject, need, c.object); err != nil {
		return err
	}
	if of == aboutMachine {
		m, err := a.deps.Locator.Find(r.Context(), machineRef(r),
			func(m fleet.Machine) bool { return sees(r, scopeOf(m)) })
		if err != nil {
			return err
		}
		c.machine, c.object = m, authz.Object{Class: authz.Scoped, Scope: scopeOf(m)}
		return refusal(c.subject, need, c.object)
	}
	if of == aboutMove {
		id := fleet.MoveID(r.PathValue("id"))
		v, err := a.deps.Moves.Move(r.Context(), id)
		if err != nil {
			return err
		}
		s := authz.Scope{Network: string(v.Move.Network), App: string(v.App)}
		if !sees(r, s) {
			return fleet.NoMove(id)
		}
		c.object = authz.Object{Class: authz.Scoped, Scope: s}
		return refusal(c.subject, need, c.object)
	}
	return nil
}

// classOf returns the class of what a route is about, as far as the route says it.
func classOf(of about) authz.Class {
	switch of {
	case aboutMetrics:
		return authz.Metrics
	case aboutFleet:
		return authz.Fleet
	case aboutFeed:
		return authz.Feed
	case aboutSome, aboutMachine, aboutMove:
		return authz.Some
	case aboutNothing:
	}
	return authz.Public
}

// mayDo refuses a call that names a scope in its body, unless the caller has a verb there. What is
// in the scope, and whether anything is, doesn't count.
func mayDo(r *http.Request, need authz.Verb, s authz.Scope) error {
	if callOf(r).subject.On(s) >= need {
		return nil
	}
	return lacksVerb(callOf(r).subject, need, s)
}

// refusal puts a decision into words.
func refusal(s authz.Subject, need authz.Verb, o authz.Object) error {
	if authz.Decide(s, need, o) == authz.Allowed {
		return nil
	}
	if s.Kind == authz.Worker || s.Kind == authz.Scraper {
		return errs.New(errs.Denied, "who calls as %s may not call this", s.Kind).
			WithRemedy("use a token of an operator, or: sluice token create")
	}
	if o.Class == authz.Feed {
		return errs.New(errs.Denied, "only workers may call this").
			WithRemedy("workers call this by their certificates")
	}
	if o.Class == authz.Some {
		return errs.New(errs.Denied, "your token lets you do %s; this needs %s", grantsOf(s),
			need).WithRemedy("ask an admin for a token with that verb")
	}
	return lacksVerb(s, need, o.Scope)
}

// lacksVerb is the error for who would need a verb on a scope.
func lacksVerb(s authz.Subject, need authz.Verb, where authz.Scope) error {
	return errs.New(errs.Denied, "your token lets you do %s; this needs %s on %s", grantsOf(s),
		need, where).WithRemedy("ask an admin of that scope for a token")
}
