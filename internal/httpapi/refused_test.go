package httpapi_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/authz"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/httpapi/httpapitest"
	"github.com/sluice-platform/sluice/internal/identity"
)

// TestJoinsAndRefusalsAreAudited: who got a certificate, and who was refused where he may not read.
func TestJoinsAndRefusalsAreAudited(t *testing.T) {
	f := httpapitest.New()
	s := auditedAPI(t, f, nil)
	token := addToken(t, f, "ci", []fleet.Grant{{Network: "prod", Verb: "read"}})
	join := identity.NewToken("theauthority")
	request(t, s, "POST", "/internal/v1/enroll", "", `{"worker":"w9","token":"`+join.String()+`"}`)
	request(t, s, "POST", "/internal/v1/workers/w1/renew", workerToken, `{"request":"x"}`)
	request(t, s, "POST", "/internal/v1/workers/w2/renew", workerToken, `{"request":"x"}`)
	request(t, s, "GET", "/v1/workers", token, "")
	request(t, s, "GET", "/v1/machines", "", "")
	request(t, s, "GET", "/v1/machines", token, "") // allowed
	want := []struct {
		subject, call, object string
		status                int
	}{
		{"anonymous", "POST /internal/v1/enroll", "worker/w9 worker-token/" + join.ID, 200},
		{"w1", "POST /internal/v1/workers/{id}/renew", "worker/w1", 200},
		{"w1", "POST /internal/v1/workers/{id}/renew", "worker/w2", 403},
		{"ci", "GET /v1/workers", "", 403},
		{"anonymous", "GET /v1/machines", "", 401},
	}
	got := entries(t, s, len(want))
	if len(got) != len(want) {
		t.Fatalf("%d entries: %+v", len(got), got)
	}
	for i, e := range got {
		w := want[i]
		if e.Subject != w.subject || e.Call != w.call || e.Status != w.status ||
			!strings.Contains(strings.Join(e.Objects, " "), w.object) || e.Remote == "" {
			t.Errorf("entry %d: %+v, want %+v", i, e, w)
		}
		if strings.Contains(strings.Join(e.Objects, " "), join.Secret) {
			t.Errorf("a secret is in the audit log: %+v", e)
		}
	}
}

// TestTheRefusedCallOfAnEndedTokenNamesIt, by its id: who still has it shows in the audit log.
func TestTheRefusedCallOfAnEndedTokenNamesIt(t *testing.T) {
	f := httpapitest.New()
	s := auditedAPI(t, f, nil)
	token := addToken(t, f, "ci", []fleet.Grant{{Network: "prod", Verb: "read"}})
	p, _ := authz.ParseToken(token)
	if _, err := f.RevokeToken(t.Context(), fleet.TokenID(p.ID), "test"); err != nil {
		t.Fatal(err)
	}
	request(t, s, "GET", "/v1/machines", token, "")
	if e := entries(t, s, 1)[0]; e.Subject != "anonymous" || e.Token != p.ID || e.Status != 401 {
		t.Errorf("%+v", e)
	}
}

// TestAFloodOfRefusalsDoesNotFillTheAuditLog: of refused calls only some are recorded.
func TestAFloodOfRefusalsDoesNotFillTheAuditLog(t *testing.T) {
	f := httpapitest.New()
	s := auditedAPI(t, f, nil)
	for range 300 {
		if status, _, _ := request(t, s, "GET", "/v1/machines", "wrong", ""); status !=
			http.StatusUnauthorized {
			t.Fatal(status)
		}
	}
	request(t, s, "POST", "/v1/drains", operatorToken, `{"workers":["w1"]}`) // after all others
	got := entries(t, s, 2)
	for got[len(got)-1].Status != http.StatusCreated {
		got = entries(t, s, len(got)+1)
	}
	if n := len(got); n > 10*10 { // some minutes on a slow host
		t.Errorf("%d of 300 refused calls are recorded", n-1)
	}
}
