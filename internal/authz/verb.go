package authz

import (
	"strings"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Verb is what a grant lets its holder do. A greater one includes the smaller ones.
type Verb int

// The verbs.
const (
	None    Verb = iota
	Read         // see state
	Use          // exec, logs, ports, services and files of a machine
	Operate      // create, change, start, stop, move and destroy machines
	Admin        // all, tokens included; on the whole fleet also workers, drains, images and audit
)

// verbNames has the names in the order of the verbs; None has none.
func verbNames() []string { return []string{"", "read", "use", "operate", "admin"} }

// String returns the verb's name.
func (v Verb) String() string {
	if names := verbNames(); v > None && int(v) < len(names) {
		return names[v]
	}
	return "none"
}

// ParseVerb returns the verb of a name. Invalid: there is no such verb.
func ParseVerb(name string) (Verb, error) {
	for v, n := range verbNames() {
		if n == name && n != "" {
			return Verb(v), nil
		}
	}
	return None, errs.New(errs.Invalid, "verb %q is not known", name).
		WithRemedy("use one of: %s", strings.Join(verbNames()[1:], ", "))
}

// Scope is a part of the fleet. "" in a field means all: the zero Scope is the whole fleet.
type Scope struct{ Network, App string }

// Covers reports whether all of o is in s.
func (s Scope) Covers(o Scope) bool {
	return (s.Network == "" || s.Network == o.Network) && (s.App == "" || s.App == o.App)
}

// String says the scope in words.
func (s Scope) String() string {
	switch {
	case s == Scope{}:
		return "the whole fleet"
	case s.App == "":
		return "network " + s.Network
	case s.Network == "":
		return "app " + s.App
	default:
		return "app " + s.App + " in network " + s.Network
	}
}

// Grant is a verb on a scope.
type Grant struct {
	Scope
	Verb Verb
}

// SplitGrant takes VERB[@NETWORK[/APP]], or VERB@/APP, apart; false if it isn't of that form.
// Whether there is such a verb, and whether the names are allowed, is for the caller to check.
func SplitGrant(text string) (verb, network, app string, ok bool) {
	verb, where, limited := strings.Cut(text, "@")
	network, app, _ = strings.Cut(where, "/")
	return verb, network, app, verb != "" && (!limited || network != "" || app != "")
}
