package authz

// Kind is what sort of caller a subject is.
type Kind string

// Kinds of callers.
const (
	Anonymous Kind = "anonymous" // came without a token, or with none that counts
	Operator  Kind = "operator"  // has the token in the server's own file: everything
	Holder    Kind = "token"     // a person or program with a token of its own
	Person    Kind = "oidc"      // a person whom an OpenID Connect issuer vouches for
	Worker    Kind = "worker"    // a worker, for what workers ask
	Scraper   Kind = "metrics"   // reads metrics, and nothing else
)

// Subject is who asks.
type Subject struct {
	Kind   Kind
	Name   string // for people: of the token, or of the kind
	Token  string // id of the token; "" for those that have none
	Grants []Grant
}

// Fleetwide returns a subject of a kind that may do everything.
func Fleetwide(kind Kind) Subject {
	return Subject{Kind: kind, Name: string(kind), Grants: []Grant{{Verb: Admin}}}
}

// On returns the greatest verb that the subject has on all of a scope.
func (s Subject) On(o Scope) Verb {
	best := None
	for _, g := range s.Grants {
		if g.Covers(o) {
			best = max(best, g.Verb)
		}
	}
	return best
}

// Anywhere returns the greatest verb that the subject has on any scope.
func (s Subject) Anywhere() Verb {
	best := None
	for _, g := range s.Grants {
		best = max(best, g.Verb)
	}
	return best
}

// Class is what sort of thing a call is about.
type Class string

// Classes of objects.
const (
	Public  Class = "public"  // for anybody
	Fleet   Class = "fleet"   // workers, drains, audit: of the whole fleet
	Metrics Class = "metrics" // of the whole fleet, and for scrapers
	Feed    Class = "feed"    // what workers ask; nobody else
	Some    Class = "some"    // what the caller may see of it is for the call itself to choose
	Scoped  Class = "scoped"  // is in a network and an app
)

// Object is what a call is about. Scope counts for Scoped alone.
type Object struct {
	Class Class
	Scope Scope
}

// Decision is whether a call is allowed.
type Decision string

// Decisions.
const (
	Allowed   Decision = "allowed"
	Unknown   Decision = "unknown"   // nobody knows who asks
	Forbidden Decision = "forbidden" // the caller may know of the object, and may not do this
	Hidden    Decision = "hidden"    // the caller may not know that the object exists
)

// Decide says whether a subject may do what needs a verb on an object.
func Decide(s Subject, need Verb, o Object) Decision {
	switch {
	case o.Class == Public:
		return Allowed
	case s.Kind == Anonymous || s.Kind == "":
		return Unknown
	case o.Class == Feed:
		return allowed(s.Kind == Worker)
	case o.Class == Metrics && s.Kind == Scraper:
		return Allowed
	case s.Kind == Worker || s.Kind == Scraper:
		return Forbidden
	case o.Class == Fleet || o.Class == Metrics:
		return allowed(s.On(Scope{}) >= need)
	case o.Class == Some:
		return allowed(s.Anywhere() >= need)
	case o.Class == Scoped && s.On(o.Scope) == None:
		return Hidden
	case o.Class == Scoped:
		return allowed(s.On(o.Scope) >= need)
	}
	return Forbidden
}

func allowed(yes bool) Decision {
	if yes {
		return Allowed
	}
	return Forbidden
}

// Has reports whether a subject may do all that grants let one do.
func Has(s Subject, grants []Grant) bool {
	for _, g := range grants {
		if s.On(g.Scope) < g.Verb {
			return false
		}
	}
	return true
}

// MayGrant reports whether a subject may give grants away: it is admin of each one's scope.
func MayGrant(s Subject, grants []Grant) bool {
	for _, g := range grants {
		if s.On(g.Scope) < Admin {
			return false
		}
	}
	return len(grants) > 0
}
