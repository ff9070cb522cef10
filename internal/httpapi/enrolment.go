package httpapi

import (
	"cmp"
	"fmt"
	"net/http"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/internal/x/connlimit"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

// enrolCalls are the calls about who gets a certificate, and whose is taken.
type enrolCalls struct{ enrolment fleet.Enrolment }

// defaultJoinTTL is how long a join token can be used if nothing is said.
const defaultJoinTTL = time.Hour

func joinTokenToAPI(t fleet.JoinToken) api.JoinToken {
	return api.JoinToken{ID: t.ID, Worker: string(t.Worker), CreatedAt: t.CreatedAt,
		ExpiresAt: t.ExpiresAt, UsedAt: t.UsedAt}
}

func (c enrolCalls) createToken(w http.ResponseWriter, r *http.Request) {
	var body api.CreateJoinToken
	if err := decode(w, r, maxBody, jsonhttp.Strict, &body); err != nil {
		writeError(w, err)
		return
	}
	callOf(r).acted("worker", body.Worker[:min(len(body.Worker), maxObjectName)])
	ttl, err := seconds("ttl_seconds", float64(body.TTLSeconds))
	if err != nil {
		writeError(w, err)
		return
	}
	token, text, err := c.enrolment.CreateJoinToken(r.Context(), fleet.WorkerID(body.Worker),
		cmp.Or(ttl, defaultJoinTTL))
	if err != nil {
		writeError(w, err)
		return
	}
	callOf(r).acted("worker-token", token.ID)
	out := joinTokenToAPI(token)
	out.Token = text
	jsonhttp.Write(w, http.StatusCreated, out)
}

func (c enrolCalls) listTokens(w http.ResponseWriter, r *http.Request) {
	tokens, err := c.enrolment.JoinTokens(r.Context())
	if err != nil {
		writeError(w, err)
		return
	}
	out := make([]api.JoinToken, 0, len(tokens))
	for _, t := range tokens {
		out = append(out, joinTokenToAPI(t))
	}
	answerPage(w, r, out, func(t api.JoinToken) string {
		return fmt.Sprintf("%020d%s", t.CreatedAt.UnixNano(), t.ID)
	})
}

func (c enrolCalls) deleteToken(w http.ResponseWriter, r *http.Request) {
	if err := c.enrolment.DeleteJoinToken(r.Context(), r.PathValue("id")); err != nil {
		writeError(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (c enrolCalls) revokeWorker(w http.ResponseWriter, r *http.Request) {
	var body api.Cordon
	if err := decode(w, r, maxBody, jsonhttp.Strict, &body); err != nil {
		writeError(w, err)
		return
	}
	who, err := c.enrolment.RevokeWorker(r.Context(), fleet.WorkerID(r.PathValue("id")),
		body.Reason)
	if err != nil {
		writeError(w, err)
		return
	}
	jsonhttp.Write(w, http.StatusOK, api.RevokedWorker{ID: string(who.Worker),
		RevokedAt: who.RevokedAt, Reason: who.Reason})
}

// enroll is for those who have a join token and no certificate yet.
func (c enrolCalls) enroll(w http.ResponseWriter, r *http.Request) {
	if r.TLS == nil {
		writeError(w, errs.New(errs.Denied, "workers join over TLS only").
			WithRemedy("give the worker an https URL of the server with --server"))
		return
	}
	var req fleet.EnrollRequest
	if err := decode(w, r, maxBody, jsonhttp.Lenient, &req); err != nil {
		writeError(w, err)
		return
	}
	callOf(r).acted("worker", string(req.Worker)[:min(len(req.Worker), maxObjectName)])
	if t, err := identity.ParseToken(req.Token); err == nil { // else it is told where it is used
		callOf(r).acted("worker-token", t.ID[:min(len(t.ID), maxObjectName)])
	}
	answer, err := c.enrolment.Enroll(r.Context(), req)
	if err != nil {
		writeError(w, err)
		return
	}
	connlimit.Known(r.Context())
	jsonhttp.Write(w, http.StatusOK, answer)
}

func (c enrolCalls) renew(w http.ResponseWriter, r *http.Request) {
	var req fleet.RenewRequest
	if err := decode(w, r, maxBody, jsonhttp.Lenient, &req); err != nil {
		writeError(w, err)
		return
	}
	answer, err := c.enrolment.Renew(r.Context(), peerOf(r), termOf(r), req.Request)
	if err != nil {
		writeError(w, err)
		return
	}
	jsonhttp.Write(w, http.StatusOK, answer)
}
