package httpapi

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/authz"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

// maxGrants bounds a token: each request looks through its grants.
const maxGrants = 32

// tokenCalls are the calls about tokens. A subject sees and makes only those that grant nothing
// beyond its own scopes.
type tokenCalls struct{ tokens fleet.Tokens }

func (c tokenCalls) createToken(w http.ResponseWriter, r *http.Request) {
	var body api.CreateToken
	if err := decode(w, r, maxBody, jsonhttp.Strict, &body); err != nil {
		writeError(w, err)
		return
	}
	c.tell(r, body)
	t, text, err := c.newToken(r, body)
	if err == nil {
		err = c.tokens.CreateToken(r.Context(), t)
	}
	if err != nil {
		writeError(w, err)
		return
	}
	callOf(r).acted("token", string(t.ID))
	out := tokenToAPI(t, time.Now())
	out.Token = text
	jsonhttp.Write(w, http.StatusCreated, out)
}

const maxToldGrants = 16

// tell has the audit log say what is asked for, also if it is refused.
func (tokenCalls) tell(r *http.Request, body api.CreateToken) {
	own := callOf(r)
	own.acted("name", body.Name[:min(len(body.Name), maxObjectName)])
	for _, g := range body.Grants[:min(len(body.Grants), maxToldGrants)] {
		where := authz.Scope{Network: g.Network, App: g.App}.String()
		text := g.Verb + " on " + where
		own.acted("grant", text[:min(len(text), maxObjectName)])
	}
}

// reservedName reports whether a name would be taken for who isn't the holder of a token, or for
// the id of one.
func reservedName(name string) bool {
	for _, kind := range []authz.Kind{authz.Anonymous, authz.Operator, authz.Holder, authz.Worker,
		authz.Scraper, authz.Person} {
		if name == string(kind) {
			return true
		}
	}
	return name == "control" || name == "user"
}

// newToken returns the token that a request asks for, and its text. Denied: it would grant more
// than the caller has, or for longer.
func (c tokenCalls) newToken(r *http.Request, body api.CreateToken) (fleet.Token, string, error) {
	own := callOf(r)
	if err := fleet.CheckName("token", body.Name); err != nil {
		return fleet.Token{}, "", err
	}
	_, err := c.tokens.Token(fleet.TokenID(body.Name))
	if err == nil || reservedName(body.Name) {
		return fleet.Token{}, "", errs.New(errs.Invalid,
			"a token can't be called %q: it would be taken for another", body.Name).
			WithRemedy("choose another name")
	}
	grants, err := grantsFromAPI(body.Grants)
	if err != nil {
		return fleet.Token{}, "", err
	}
	for _, g := range grants {
		if err := mayDo(r, authz.Admin, authz.Scope{Network: string(g.Network),
			App: string(g.App)}); err != nil {
			return fleet.Token{}, "", err
		}
	}
	ttl, err := seconds("ttl", body.TTL)
	if err != nil {
		return fleet.Token{}, "", err
	}
	secret, now := authz.NewSecret(), time.Now().UTC().Truncate(time.Millisecond)
	t := fleet.Token{ID: fleet.TokenID(secret.ID), Name: body.Name, Hash: secret.Hash,
		Grants: grants, CreatedAt: now, CreatedBy: creatorOf(own.subject)}
	if ttl > 0 {
		t.ExpiresAt = now.Add(ttl)
	}
	if end := own.who.ExpiresAt; !end.IsZero() && (ttl == 0 || t.ExpiresAt.After(end)) {
		return fleet.Token{}, "", errs.New(errs.Denied,
			"your token ends at %s, and can't make one that lasts longer",
			end.UTC().Format(time.RFC3339)).WithRemedy("give a ttl that ends before that")
	}
	visible, err := c.visible(r)
	if err != nil {
		return fleet.Token{}, "", err
	}
	for _, other := range visible {
		if other.Name == t.Name && other.StateAt(now) == fleet.TokenLive {
			return fleet.Token{}, "", errs.New(errs.Exists, "there is a token %s (%s) already",
				t.Name, other.ID).
				WithRemedy("choose another name, or: sluice token revoke %s", t.Name)
		}
	}
	return t, secret.Text, nil
}

// creatorOf names a subject in the record of a token: the token's id tells two of one name apart.
func creatorOf(s authz.Subject) string {
	if s.Token == "" {
		return s.Name
	}
	return s.Name + " (" + s.Token + ")"
}

func grantsFromAPI(in []api.Grant) ([]fleet.Grant, error) {
	if len(in) == 0 || len(in) > maxGrants {
		return nil, errs.New(errs.Invalid, "a token has from 1 to %d grants, not %d", maxGrants,
			len(in)).WithRemedy("say in grants what it lets its holder do, and where")
	}
	var out []fleet.Grant
	for _, g := range in {
		if _, err := authz.ParseVerb(g.Verb); err != nil {
			return nil, err
		}
		for _, n := range []struct{ what, name string }{{"network", g.Network}, {"app", g.App}} {
			if n.name == "" {
				continue
			}
			if err := fleet.CheckName(n.what, n.name); err != nil {
				return nil, err
			}
		}
		out = append(out, fleet.Grant{Network: fleet.NetworkName(g.Network),
			App: fleet.AppName(g.App), Verb: g.Verb})
	}
	return out, nil
}

// visible returns the tokens that a request's subject may know of.
func (c tokenCalls) visible(r *http.Request) ([]fleet.Token, error) {
	all, err := c.tokens.Tokens(r.Context())
	if err != nil {
		return nil, err
	}
	subject := callOf(r).subject
	return slices.DeleteFunc(all, func(t fleet.Token) bool {
		return !authz.MayGrant(subject, subjectOf(t).Grants)
	}), nil
}

// find resolves an exact id or name among those that the caller may know of. Of several of one
// name the one that lives is meant.
func (c tokenCalls) find(r *http.Request, ref string) (fleet.Token, error) {
	visible, err := c.visible(r)
	if err != nil {
		return fleet.Token{}, err
	}
	now := time.Now()
	var named, live []fleet.Token
	for _, t := range visible {
		if string(t.ID) == ref {
			return t, nil
		}
		if t.Name != ref {
			continue
		}
		named = append(named, t)
		if t.StateAt(now) == fleet.TokenLive {
			live = append(live, t)
		}
	}
	if len(live) > 0 {
		named = live
	}
	switch len(named) {
	case 0:
		return fleet.Token{}, fleet.NoToken(ref)
	case 1:
		return named[0], nil
	}
	return fleet.Token{}, fleet.ManyTokens(ref, named)
}

func (c tokenCalls) listTokens(w http.ResponseWriter, r *http.Request) {
	visible, err := c.visible(r)
	if err != nil {
		writeError(w, err)
		return
	}
	now := time.Now()
	tokens := make([]api.Token, 0, len(visible))
	for _, t := range visible {
		tokens = append(tokens, tokenToAPI(t, now))
	}
	slices.SortFunc(tokens, func(a, b api.Token) int { return cmp.Compare(a.ID, b.ID) })
	answerPage(w, r, tokens, func(t api.Token) string { return t.ID })
}

func (c tokenCalls) getToken(w http.ResponseWriter, r *http.Request) {
	t, err := c.find(r, r.PathValue("ref"))
	answerToken(w, t, err)
}

func (c tokenCalls) revokeToken(w http.ResponseWriter, r *http.Request) {
	t, err := c.find(r, r.PathValue("ref"))
	if err == nil {
		t, err = c.tokens.RevokeToken(r.Context(), t.ID, creatorOf(callOf(r).subject))
		callOf(r).acted("token", string(t.ID))
	}
	answerToken(w, t, err)
}

func answerToken(w http.ResponseWriter, t fleet.Token, err error) {
	if err != nil {
		writeError(w, err)
		return
	}
	jsonhttp.Write(w, http.StatusOK, tokenToAPI(t, time.Now()))
}

func tokenToAPI(t fleet.Token, now time.Time) api.Token {
	out := api.Token{ID: string(t.ID), Name: t.Name, State: string(t.StateAt(now)),
		CreatedAt: t.CreatedAt, CreatedBy: t.CreatedBy, ExpiresAt: t.ExpiresAt,
		RevokedAt: t.RevokedAt, RevokedBy: t.RevokedBy, LastUsedAt: t.LastUsedAt}
	for _, g := range t.Grants {
		out.Grants = append(out.Grants,
			api.Grant{Network: string(g.Network), App: string(g.App), Verb: g.Verb})
	}
	return out
}
