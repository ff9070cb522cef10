package httpapi

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/authz"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

// quotaCalls are the calls about quotas.
type quotaCalls struct {
	quotas  fleet.Quotas
	streams *streams
}

const pathQuota = "/v1/quotas/{id}"

// quotaRoutes are the calls about quotas. Whoever sees a network sees its quota; the fleet's admins
// alone change any, or a tenant could give itself the whole fleet.
func (a *API) quotaRoutes() []route {
	c := quotaCalls{a.deps.Quotas, a.streams}
	return []route{
		{"GET", "/v1/quotas", authz.Read, aboutSome, c.listQuotas},
		{"GET", pathQuota, authz.Read, aboutSome, c.getQuota},
		{"PATCH", pathQuota, authz.Admin, aboutFleet, c.setQuota},
		{"DELETE", pathQuota, authz.Admin, aboutFleet, c.clearQuota},
	}
}

// quotaScope returns which quota a request is about. In a path its id has "~" for "/", as
// references to machines do.
func quotaScope(r *http.Request) (fleet.QuotaScope, error) {
	id := strings.ReplaceAll(r.PathValue("id"), "~", "/")
	of := fleet.ScopeOfID(id)
	if of.ID() != id {
		return of, errs.New(errs.NotFound, "there is no quota %q", id).
			WithRemedy("name it network/NETWORK, network/NETWORK/APP, default or fleet")
	}
	return of, of.Check()
}

func scopeOfQuota(of fleet.QuotaScope) authz.Scope {
	return authz.Scope{Network: string(of.Network), App: string(of.App)}
}

func (c quotaCalls) listQuotas(w http.ResponseWriter, r *http.Request) {
	views, err := c.quotas.Quotas(r.Context())
	if err != nil {
		writeError(w, err)
		return
	}
	quotas := make([]api.Quota, 0, len(views))
	for _, v := range views {
		if sees(r, scopeOfQuota(v.Scope)) {
			quotas = append(quotas, c.toAPI(v))
		}
	}
	answerPage(w, r, quotas, func(q api.Quota) string { return q.ID })
}

func (c quotaCalls) getQuota(w http.ResponseWriter, r *http.Request) {
	of, err := quotaScope(r)
	if err == nil {
		err = mayDo(r, authz.Read, scopeOfQuota(of))
	}
	if err != nil {
		writeError(w, err)
		return
	}
	v, err := c.quotas.Quota(r.Context(), of)
	c.answer(w, v, err)
}

func (c quotaCalls) setQuota(w http.ResponseWriter, r *http.Request) {
	of, err := quotaScope(r)
	if err != nil {
		writeError(w, err)
		return
	}
	var body api.SetQuota
	if err := decode(w, r, maxBody, jsonhttp.Strict, &body); err != nil {
		writeError(w, err)
		return
	}
	limits := map[fleet.Quantity]*int64{}
	for _, q := range slices.Sorted(maps.Keys(body.Limits)) {
		limits[fleet.Quantity(q)] = body.Limits[q]
	}
	tellLimits(r, of, limits)
	v, err := c.quotas.SetQuota(r.Context(), of, limits)
	c.answer(w, v, err)
}

// tellLimits has the audit log say what is asked for, also if it is refused.
func tellLimits(r *http.Request, of fleet.QuotaScope, limits map[fleet.Quantity]*int64) {
	for _, q := range of.Quantities() {
		limit, named := limits[q]
		switch {
		case !named:
		case limit == nil:
			callOf(r).acted("limit", string(q)+"=default")
		default:
			callOf(r).acted("limit", fmt.Sprintf("%s=%d", q, *limit))
		}
	}
}

func (c quotaCalls) clearQuota(w http.ResponseWriter, r *http.Request) {
	of, err := quotaScope(r)
	if err == nil {
		err = c.quotas.ClearQuota(r.Context(), of)
	}
	if err != nil {
		writeError(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (c quotaCalls) answer(w http.ResponseWriter, v fleet.QuotaView, err error) {
	if err != nil {
		writeError(w, err)
		return
	}
	jsonhttp.Write(w, http.StatusOK, c.toAPI(v))
}

func (c quotaCalls) toAPI(v fleet.QuotaView) api.Quota {
	q := api.Quota{ID: v.Scope.ID(), Limits: amountsToAPI(v.Limits), Used: amountsToAPI(v.Used)}
	if len(v.Own) > 0 {
		q.Own = amountsToAPI(v.Own)
	}
	maps.Copy(q.Used, amountsToAPI(c.streams.used(v.Scope)))
	return q
}

func amountsToAPI(a fleet.Amounts) map[string]int64 {
	out := map[string]int64{}
	for q, n := range a {
		out[string(q)] = n
	}
	return out
}
