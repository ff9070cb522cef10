package httpapi

import (
	"net/http"
	"strconv"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/audit"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

// auditCalls are the calls about the audit log.
type auditCalls struct{ log Audit }

func noAudit() error { return errs.New(errs.NotFound, "this server has no audit log") }

func (c auditCalls) listAudit(w http.ResponseWriter, r *http.Request) {
	if c.log == nil {
		writeError(w, noAudit())
		return
	}
	q, err := auditQuery(r)
	if err != nil {
		writeError(w, err)
		return
	}
	page, err := c.log.List(r.Context(), q)
	if err != nil {
		writeError(w, err)
		return
	}
	out := api.AuditList{Items: []api.AuditEntry{}, Next: page.Next}
	if page.Break != nil {
		found := api.AuditBreak(*page.Break)
		out.Break = &found
	}
	for _, e := range page.Entries {
		out.Items = append(out.Items, auditToAPI(e))
	}
	jsonhttp.Write(w, http.StatusOK, out)
}

func auditQuery(r *http.Request) (audit.Query, error) {
	in := r.URL.Query()
	q := audit.Query{Who: in.Get("who"), What: in.Get("what"), After: in.Get("page"),
		Limit: defaultPage}
	for name, t := range map[string]*time.Time{"since": &q.Since, "until": &q.Until} {
		text := in.Get(name)
		if text == "" {
			continue
		}
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return q, errs.New(errs.Invalid, "%s %q is no time", name, text).
				WithRemedy("write it like 2026-01-31T12:00:00Z")
		}
		*t = at
	}
	if s := in.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > maxPage {
			return q, errs.New(errs.Invalid, "limit %q is not a number from 1 to %d", s, maxPage)
		}
		q.Limit = n
	}
	return q, nil
}

func auditToAPI(e audit.Entry) api.AuditEntry {
	out := api.AuditEntry{Seq: e.Seq, Time: e.Time, RequestID: e.RequestID,
		CallersID: e.CallersID, Kind: e.Kind, Subject: e.Subject, Token: e.Token,
		Remote: e.Remote, Call: e.Call, Objects: e.Objects, Status: e.Status, Code: e.Code,
		TookMS: e.TookMS, Note: e.Note}
	if e.Person != nil {
		person := api.AuditPerson(*e.Person)
		out.Person = &person
	}
	if e.Exec != nil {
		exec := api.AuditExec(*e.Exec)
		out.Exec = &exec
	}
	return out
}

func (c auditCalls) verifyAudit(w http.ResponseWriter, r *http.Request) {
	if c.log == nil {
		writeError(w, noAudit())
		return
	}
	report, err := c.log.Verify(r.Context())
	if err != nil {
		writeError(w, err)
		return
	}
	out := api.AuditReport{Objects: report.Objects, Entries: report.Entries, First: report.First,
		Last: report.Last, Hash: report.Hash}
	if report.Break != nil {
		found := api.AuditBreak(*report.Break)
		out.Break = &found
	}
	jsonhttp.Write(w, http.StatusOK, out)
}
