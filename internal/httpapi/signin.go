package httpapi

import (
	"net/http"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/authz"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

// signIn tells anybody how to sign in: what the issuer tells whoever begins there, and no more.
func (a *API) signIn(w http.ResponseWriter, _ *http.Request) {
	if a.deps.People == nil {
		writeError(w, errs.New(errs.NotFound, "nobody signs in to this server").
			WithRemedy("ask an operator for a token (sluice token create), and set SLUICE_TOKEN"))
		return
	}
	o := a.deps.People.Offer()
	jsonhttp.Write(w, http.StatusOK, api.SignIn{Issuer: o.Issuer, ClientID: o.ClientID,
		Scopes: o.Scopes, CA: string(o.CA)})
}

// whoAmI tells a caller how the server knows it.
func (a *API) whoAmI(w http.ResponseWriter, r *http.Request) {
	c := callOf(r)
	out := api.Caller{Kind: string(c.subject.Kind), Name: c.subject.Name, Token: c.subject.Token,
		ExpiresAt: c.who.ExpiresAt, Grants: []api.Grant{}}
	if p := c.person; c.subject.Kind == authz.Person {
		out.Person = &api.AuditPerson{Issuer: p.Issuer, Subject: p.Subject, By: p.By}
		out.Groups = p.Groups
	}
	for _, g := range c.subject.Grants {
		out.Grants = append(out.Grants, api.Grant{Network: g.Network, App: g.App,
			Verb: g.Verb.String()})
	}
	jsonhttp.Write(w, http.StatusOK, out)
}
