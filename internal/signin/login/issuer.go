// Package login signs a person in at an OpenID Connect issuer, from a command line, and keeps what
// came of it in a file of the person's own, which it renews.
package login

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/sluice-platform/sluice/internal/signin"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Timeout bounds a request to the issuer.
const Timeout = 20 * time.Second

// usual are the scopes that are asked for where the issuer knows them: a name, groups, and that a
// sign-in can be renewed.
func usual() []string {
	return []string{oidc.ScopeOpenID, "profile", "email", "groups", oidc.ScopeOfflineAccess}
}

// at is an issuer that was asked what it can.
type at struct {
	provider *oidc.Provider
	config   oauth2.Config
	http     *http.Client
}

// ask asks the issuer of an offer what it can.
func ask(ctx context.Context, o signin.Offer) (*at, error) {
	client, err := signin.HTTPClient(o.CA, Timeout)
	if err != nil {
		return nil, err
	}
	if err := signin.CheckURL(o.Issuer); err != nil {
		return nil, err
	}
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, client), o.Issuer)
	if err != nil {
		return nil, unreachable(o.Issuer, err)
	}
	var can struct {
		Scopes []string `json:"scopes_supported"`
	}
	if err := provider.Claims(&can); err != nil {
		return nil, unreachable(o.Issuer, err)
	}
	scopes := slices.DeleteFunc(usual(), func(s string) bool {
		return s != oidc.ScopeOpenID && !slices.Contains(can.Scopes, s)
	})
	for _, s := range o.Scopes {
		if !slices.Contains(scopes, s) {
			scopes = append(scopes, s)
		}
	}
	endpoint := provider.Endpoint()
	for _, u := range []string{endpoint.AuthURL, endpoint.TokenURL} {
		if err := signin.CheckURL(u); err != nil {
			return nil, errs.Wrap(errs.Invalid, err, "issuer %s names a place", o.Issuer)
		}
	}
	endpoint.AuthStyle = oauth2.AuthStyleInParams // a public client has no secret to show
	return &at{provider: provider, http: client,
		config: oauth2.Config{ClientID: o.ClientID, Endpoint: endpoint, Scopes: scopes}}, nil
}

func unreachable(issuer string, err error) error {
	return errs.Wrap(errs.Unavailable, err, "issuer %s can't be asked", issuer).
		WithRemedy("check that this host reaches it, and by which authority it is known: the server's --oidc-ca")
}

// context is for requests to the issuer.
func (a *at) context(ctx context.Context) context.Context { return oidc.ClientContext(ctx, a.http) }

// read checks an ID token that came with a token, and that it is for nonce; "": for any.
func (a *at) read(ctx context.Context, t *oauth2.Token, nonce string) (Tokens, error) {
	raw, ok := t.Extra("id_token").(string)
	if !ok {
		return Tokens{}, errs.New(errs.Denied, "the issuer has given no ID token").
			WithRemedy("check at the issuer that the client may have scope openid")
	}
	id, err := a.provider.VerifierContext(a.context(ctx),
		&oidc.Config{ClientID: a.config.ClientID}).Verify(ctx, raw)
	if err != nil {
		return Tokens{}, errs.Wrap(errs.Denied, err, "the issuer's ID token can't be used").
			WithRemedy("compare the clocks of this host and the issuer")
	}
	if nonce != "" && id.Nonce != nonce {
		return Tokens{}, errs.New(errs.Denied, "the ID token is not of this sign-in").
			WithRemedy("sluice login")
	}
	return Tokens{IDToken: raw, RefreshToken: t.RefreshToken, Subject: id.Subject,
		IssuedAt: id.IssuedAt, Expires: id.Expiry}, nil
}

// renew returns new tokens for those of somebody.
func (a *at) renew(ctx context.Context, old Tokens) (Tokens, error) {
	t, err := a.config.TokenSource(a.context(ctx),
		&oauth2.Token{RefreshToken: old.RefreshToken}).Token()
	if err != nil {
		return old, a.refused(ctx, err, "renew the sign-in")
	}
	fresh, err := a.read(ctx, t, "")
	if err != nil {
		return old, err
	}
	if fresh.Subject != old.Subject {
		return old, errs.New(errs.Denied, "the issuer has renewed the sign-in for somebody else").
			WithRemedy("sluice login")
	}
	if fresh.RefreshToken == "" {
		fresh.RefreshToken = old.RefreshToken
	}
	return fresh, nil
}

// refused tells what the issuer refuses from an issuer that is away.
func (a *at) refused(ctx context.Context, err error, what string) error {
	if cause := ctx.Err(); cause != nil {
		return cause
	}
	var answer *oauth2.RetrieveError
	if errors.As(err, &answer) && answer.Response != nil && answer.Response.StatusCode/100 == 4 {
		return errs.New(errs.Denied, "%s: the issuer refuses it: %s", what,
			plain(answer.ErrorCode+" "+answer.ErrorDescription)).WithRemedy("sluice login")
	}
	return errs.Wrap(errs.Unavailable, err, "%s", what).
		WithRemedy("check that this host reaches the issuer, and try again")
}

// plain makes a text of the issuer fit for a line of a terminal.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, s)
	return strings.TrimSpace(s[:min(len(s), 200)])
}

// Tokens is what the issuer has given to somebody who signed in.
type Tokens struct {
	IDToken      string    `json:"id_token"`
	RefreshToken string    `json:"refresh_token,omitempty"`
	Subject      string    `json:"subject"`
	IssuedAt     time.Time `json:"issued_at"`
	Expires      time.Time `json:"expires_at"`
}

// String has no token in it.
func (t Tokens) String() string { return fmt.Sprintf("(sign-in until %s)", t.Expires) }
