package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/sluice-platform/sluice/internal/authz"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/signin"
)

// call is what is known of one request by those who handle it, one after another.
type call struct {
	id      string // our own: nobody can choose it
	callers string // the id that the caller gave it, if any
	subject authz.Subject
	machine fleet.Machine // of a call about one
	who     fleet.Token   // of a subject that has one
	person  signin.Person // of one that has signed in
	object  authz.Object  // that the call was decided on
	began   time.Time
	objects []string // that the call has made or acted on, as kind/id
}

type callKey struct{}

// callOf returns the request's call. All that is dispatched has one.
func callOf(r *http.Request) *call {
	if c, ok := r.Context().Value(callKey{}).(*call); ok {
		return c
	}
	return &call{}
}

func withCall(r *http.Request, c *call) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), callKey{}, c))
}

// acted notes an object that the call has made or acted on.
func (c *call) acted(kind, id string) {
	if id != "" {
		c.objects = append(c.objects, kind+"/"+id)
	}
}

// scopeOf returns where a machine is.
func scopeOf(m fleet.Machine) authz.Scope {
	return authz.Scope{Network: string(m.Network), App: string(m.App)}
}

// sees reports whether a request's subject may know of what is in a scope.
func sees(r *http.Request, s authz.Scope) bool {
	decision := authz.Decide(callOf(r).subject, authz.Read,
		authz.Object{Class: authz.Scoped, Scope: s})
	return decision == authz.Allowed
}
