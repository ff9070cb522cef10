package authz_test

import (
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/authz"
)

func holder(grants ...authz.Grant) authz.Subject {
	return authz.Subject{Kind: authz.Holder, Grants: grants}
}

func on(network, app string, v authz.Verb) authz.Grant {
	return authz.Grant{Scope: authz.Scope{Network: network, App: app}, Verb: v}
}

func TestDecide(t *testing.T) {
	machine := authz.Object{Class: authz.Scoped,
		Scope: authz.Scope{Network: "prod", App: "shop"}}
	fleet, feed := authz.Object{Class: authz.Fleet}, authz.Object{Class: authz.Feed}
	for _, c := range []struct {
		name string
		s    authz.Subject
		need authz.Verb
		o    authz.Object
		want authz.Decision
	}{
		{"nobody, public", authz.Subject{}, authz.None, authz.Object{Class: authz.Public},
			authz.Allowed},
		{"nobody, machine", authz.Subject{}, authz.Read, machine, authz.Unknown},
		{"other network", holder(on("test", "", authz.Admin)), authz.Read, machine, authz.Hidden},
		{"other app", holder(on("prod", "blog", authz.Admin)), authz.Read, machine, authz.Hidden},
		{"app in other network", holder(on("test", "shop", authz.Admin)), authz.Read, machine,
			authz.Hidden},
		{"network", holder(on("prod", "", authz.Use)), authz.Use, machine, authz.Allowed},
		{"app", holder(on("", "shop", authz.Use)), authz.Read, machine, authz.Allowed},
		{"too little", holder(on("prod", "", authz.Use)), authz.Operate, machine,
			authz.Forbidden},
		{"the best counts", holder(on("prod", "", authz.Read), on("prod", "shop", authz.Operate)),
			authz.Operate, machine, authz.Allowed},
		{"network's admin, fleet", holder(on("prod", "", authz.Admin)), authz.Read, fleet,
			authz.Forbidden},
		{"fleet's reader, fleet", holder(on("", "", authz.Read)), authz.Read, fleet,
			authz.Allowed},
		{"network's admin, some", holder(on("prod", "", authz.Admin)), authz.Operate,
			authz.Object{Class: authz.Some}, authz.Allowed},
		{"no grant, some", holder(), authz.Read, authz.Object{Class: authz.Some},
			authz.Forbidden},
		{"operator, feed", authz.Fleetwide(authz.Operator), authz.Read, feed, authz.Forbidden},
		{"worker, feed", authz.Subject{Kind: authz.Worker}, authz.None, feed, authz.Allowed},
		{"worker, machine", authz.Fleetwide(authz.Worker), authz.Read, machine,
			authz.Forbidden},
		{"scraper, metrics", authz.Subject{Kind: authz.Scraper}, authz.Read,
			authz.Object{Class: authz.Metrics}, authz.Allowed},
		{"scraper, fleet", authz.Subject{Kind: authz.Scraper}, authz.Read, fleet,
			authz.Forbidden},
		{"operator, no class", authz.Fleetwide(authz.Operator), authz.Read, authz.Object{},
			authz.Forbidden},
	} {
		if got := authz.Decide(c.s, c.need, c.o); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestNobodyGrantsMoreThanItHas(t *testing.T) {
	admin := holder(on("prod", "", authz.Admin), on("test", "", authz.Operate))
	for _, c := range []struct {
		grants []authz.Grant
		want   bool
	}{
		{[]authz.Grant{on("prod", "shop", authz.Admin)}, true},
		{[]authz.Grant{on("prod", "", authz.Read)}, true},
		{[]authz.Grant{on("", "", authz.Read)}, false},
		{[]authz.Grant{on("", "shop", authz.Read)}, false},
		{[]authz.Grant{on("test", "", authz.Read)}, false},
		{[]authz.Grant{on("prod", "", authz.Read), on("dev", "", authz.Read)}, false},
		{nil, false},
	} {
		if got := authz.MayGrant(admin, c.grants); got != c.want {
			t.Errorf("%v: %v, want %v", c.grants, got, c.want)
		}
	}
}

func TestVerbs(t *testing.T) {
	for _, name := range []string{"read", "use", "operate", "admin"} {
		v, err := authz.ParseVerb(name)
		if err != nil || v.String() != name {
			t.Errorf("%s: %v, %v", name, v, err)
		}
	}
	for _, name := range []string{"", "none", "write"} {
		if _, err := authz.ParseVerb(name); err == nil {
			t.Errorf("%q is a verb", name)
		}
	}
}

func TestTokenText(t *testing.T) {
	s := authz.NewSecret()
	p, ok := authz.ParseToken(s.Text)
	if !ok || p.ID != s.ID || !p.Is(s.Hash) {
		t.Fatalf("%q: %+v, %v", s.Text, p, ok)
	}
	if p.Is(authz.NewSecret().Hash) {
		t.Error("it is another token, too")
	}
	for _, bad := range []string{"", "slt_", s.Text[:len(s.Text)-1], s.Text + "a",
		strings.ToUpper(s.Text), "slt_" + authz.NewSecret().ID + s.Text[4+len(s.ID):],
		strings.Replace(s.Text, "slt_", "slx_", 1)} {
		if _, ok := authz.ParseToken(bad); ok {
			t.Errorf("%q is taken for a token", bad)
		}
	}
	// Each single letter that is another one is noticed.
	for i := len("slt_"); i < len(s.Text); i++ {
		other := byte('a')
		if s.Text[i] == other {
			other = 'b'
		}
		if _, ok := authz.ParseToken(s.Text[:i] + string(other) + s.Text[i+1:]); ok {
			t.Errorf("a change of letter %d is not noticed", i)
		}
	}
}
