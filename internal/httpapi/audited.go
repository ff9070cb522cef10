package httpapi

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/audit"
	"github.com/sluice-platform/sluice/internal/authz"
	"github.com/sluice-platform/sluice/internal/x/errhttp"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Audit keeps who has done what; see package audit.
type Audit interface {
	Begin(e audit.Entry) error
	End(e audit.Entry) error
	List(ctx context.Context, q audit.Query) (audit.Page, error)
	Verify(ctx context.Context) (audit.Report, error)
}

// audited reports whether a call is one that the audit log has: it changes something, and is not a
// worker's. Calls of nobody are recorded as far as noteRefused bounds them. Execs are recorded by
// exec.
func (a *API) audited(r *http.Request, of about) bool {
	return a.deps.Audit != nil && of != aboutFeed && r.Method != http.MethodGet &&
		r.Method != http.MethodHead
}

// beginAudit records that a call begins. Its end is recorded before its answer goes out; end
// does that for a call without an answer. Unavailable: the call must not be made.
func (a *API) beginAudit(w http.ResponseWriter, r *http.Request, c *call) (end func(), err error) {
	if err := a.deps.Audit.Begin(entryOf(r, c)); err != nil {
		return nil, err
	}
	rec, ok := w.(*recorder)
	if !ok {
		return func() { _ = a.deps.Audit.End(endedWith(entryOf(r, c), 0)) }, nil
	}
	rec.answering = func(status int) error {
		e := endedWith(entryOf(r, c), status)
		e.Code = rec.code
		return a.deps.Audit.End(e)
	}
	return func() {
		switch {
		case rec.answering == nil:
		case r.Context().Err() == nil:
			rec.WriteHeader(http.StatusOK) // as net/http would
		default:
			if err := rec.answering(0); err != nil {
				a.deps.Log.WarnContext(r.Context(), "end of a call not audited", "error", err)
			}
		}
	}, nil
}

// entryOf returns what is known of a call so far.
func entryOf(r *http.Request, c *call) audit.Entry {
	e := audit.Entry{Time: c.began, RequestID: c.id, CallersID: c.callers,
		Kind: string(c.subject.Kind), Subject: c.subject.Name, Token: c.subject.Token,
		Remote: r.RemoteAddr, Call: r.Method + " " + r.Pattern, Objects: objectsOf(r, c)}
	if p := c.person; p.Subject != "" {
		e.Person = &audit.Person{Issuer: p.Issuer, Subject: p.Subject, By: p.By}
	}
	return e
}

// endedWith ends an entry; status 0: nobody was answered.
func endedWith(e audit.Entry, status int) audit.Entry {
	e.TookMS = float64(time.Since(e.Time).Microseconds()) / 1000
	e.Time, e.Status = time.Now().UTC(), status
	if status == 0 {
		e.Note = "the caller went before the answer"
	}
	return e
}

const maxObjectName = 128 // bytes of what a caller has written into a path

// objectsOf names what a call is about, and what it has made.
func objectsOf(r *http.Request, c *call) []string {
	var out []string
	add := func(kind, name string) {
		if name != "" {
			name = strings.ToValidUTF8(name[:min(len(name), maxObjectName)], "")
			out = append(out, kind+"/"+name)
		}
	}
	if m := c.machine; m.ID != "" {
		add("machine", string(m.ID))
		add("network", string(m.Network))
		add("app", string(m.App))
	}
	parts := strings.Split(r.Pattern, "/") // "", v1, machines, {ref}, services, {name}, …
	for i, part := range parts {
		name, ok := strings.CutPrefix(part, "{")
		name = strings.TrimSuffix(name, "}")
		switch {
		case !ok || i == 0 || strings.HasSuffix(name, "..."): // a path is the user's
		case name == "action":
			add("action", r.PathValue(name))
		case name == "ref" && c.machine.ID != "":
		default:
			kind := parts[i-1]
			if strings.HasPrefix(kind, "{") {
				continue
			}
			add(strings.TrimSuffix(kind, "s"), r.PathValue(name))
		}
	}
	return append(out, c.objects...)
}

// auditExec records a call of exec; nil where there is no audit log.
func (a *API) auditExec(e audit.Entry) error {
	if a.deps.Audit == nil {
		return nil
	}
	return a.deps.Audit.End(e)
}

// auditRefusedExec records an exec that the caller may not do, and reports whether it was one.
func (a *API) auditRefusedExec(r *http.Request, c *call, why error) bool {
	if r.Pattern != pathInside+"exec" || c.subject.Kind == authz.Anonymous {
		return false
	}
	kind := errs.KindOf(why)
	e := endedWith(entryOf(r, c), errhttp.Status(kind))
	e.Code = string(kind)
	if err := a.auditExec(e); err != nil {
		a.deps.Log.WarnContext(r.Context(), "a refused exec not audited", "error", err)
	}
	return true
}
