package client

import (
	"context"
	"net/url"
	"time"

	"github.com/sluice-platform/sluice/api"
)

// AuditQuery says which entries of the audit log are wanted; "" and zero times mean all.
type AuditQuery struct {
	Since, Until time.Time
	Who          string // exactly the name of a subject, or a token's id
	What         string // a part of the call, or of an object
}

// Audit returns entries of the audit log, oldest first, and the first place at which what was read
// for them isn't what was written; nil: there is none. The newest second may be missing.
func (c *Client) Audit(ctx context.Context, q AuditQuery) ([]api.AuditEntry, *api.AuditBreak,
	error) {
	values := url.Values{}
	for name, text := range map[string]string{"who": q.Who, "what": q.What} {
		if text != "" {
			values.Set(name, text)
		}
	}
	for name, t := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !t.IsZero() {
			values.Set(name, t.UTC().Format(time.RFC3339))
		}
	}
	all := []api.AuditEntry{}
	var broken *api.AuditBreak
	for {
		var list api.AuditList
		if err := c.get(ctx, pathOf("audit"), values, &list); err != nil {
			return nil, nil, err
		}
		all = append(all, list.Items...)
		if broken == nil {
			broken = list.Break
		}
		if list.Next == "" {
			return all, broken, nil
		}
		values.Set("page", list.Next)
	}
}

// VerifyAudit walks the whole audit log. It may take minutes for a long one.
func (c *Client) VerifyAudit(ctx context.Context) (api.AuditReport, error) {
	var r api.AuditReport
	err := c.get(ctx, pathOf("audit", "verify"), nil, &r)
	return r, err
}
