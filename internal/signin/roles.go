package signin

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-platform/sluice/internal/authz"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Roles says what groups and single people may do.
type Roles struct{ rules []rule }

// rule is one line.
type rule struct {
	by     by
	name   string
	deny   bool
	grants []authz.Grant
}

// by is how a line names people.
type by string

const (
	byGroup   by = "group"   // a group of the ID token
	byUser    by = "user"    // the username, by the claim that the server was told
	bySubject by = "subject" // what the issuer never gives to anybody else: sub
)

const (
	maxRoles = 1 << 20 // bytes of the text
	maxName  = 256     // bytes of a name in it
)

const rolesForm = "write a line like: group NAME VERB[@NETWORK[/APP]]…, user NAME VERB…, " +
	"subject SUB VERB…, or deny group|user|subject NAME; a NAME with spaces in double quotes"

// ParseRoles reads a text of lines. Empty ones and those that begin with # don't count. Invalid: a
// line isn't understood, which is told by its number, or nobody is named.
func ParseRoles(text string) (*Roles, error) {
	if len(text) > maxRoles {
		return nil, errs.New(errs.Invalid, "%d bytes of roles are more than %d", len(text),
			maxRoles).WithRemedy("name groups, and not each person")
	}
	r := &Roles{}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		one, err := parseRule(line)
		if err != nil {
			return nil, errs.Wrap(errs.Invalid, err, "line %d of the roles", number).
				WithRemedy(rolesForm)
		}
		r.rules = append(r.rules, one)
	}
	if len(r.rules) == 0 {
		return nil, errs.New(errs.Invalid, "the roles name nobody").WithRemedy(rolesForm)
	}
	return r, nil
}

func parseRule(line string) (rule, error) {
	words, err := wordsOf(line)
	if err != nil {
		return rule{}, err
	}
	r := rule{}
	if words[0] == "deny" {
		r.deny, words = true, words[1:]
	}
	if len(words) < 2 {
		return r, errs.New(errs.Invalid, "it names nobody")
	}
	r.by, r.name, words = by(words[0]), words[1], words[2:]
	switch {
	case r.by != byGroup && r.by != byUser && r.by != bySubject:
		return r, errs.New(errs.Invalid, "%q is not group, user, subject or deny", r.by)
	case r.name == "" || len(r.name) > maxName:
		return r, errs.New(errs.Invalid, "a name has from 1 to %d bytes", maxName)
	case r.deny && len(words) > 0:
		return r, errs.New(errs.Invalid, "a line that denies grants nothing, and has %q", words[0])
	case !r.deny && len(words) == 0:
		return r, errs.New(errs.Invalid, "it grants nothing")
	}
	for _, word := range words {
		g, err := parseGrant(word)
		if err != nil {
			return r, err
		}
		r.grants = append(r.grants, g)
	}
	return r, nil
}

// wordsOf splits a line at spaces, but for what is in double quotes, as in Go.
func wordsOf(line string) ([]string, error) {
	var words []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		if line[0] != '"' {
			end := strings.IndexAny(line, " \t")
			if end < 0 {
				end = len(line)
			}
			words, line = append(words, line[:end]), line[end:]
			continue
		}
		quoted, err := strconv.QuotedPrefix(line)
		if err != nil {
			return nil, errs.New(errs.Invalid, "a double quote isn't closed")
		}
		word, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", quoted, err)
		}
		words, line = append(words, word), line[len(quoted):]
	}
	return words, nil
}

func parseGrant(word string) (authz.Grant, error) {
	verb, network, app, ok := authz.SplitGrant(word)
	if !ok {
		return authz.Grant{}, errs.New(errs.Invalid, "%q is not like use@prod/shop", word)
	}
	v, err := authz.ParseVerb(verb)
	if err != nil {
		return authz.Grant{}, err
	}
	for _, n := range []struct{ what, name string }{{"network", network}, {"app", app}} {
		if n.name == "" {
			continue
		}
		if err := fleet.CheckName(n.what, n.name); err != nil {
			return authz.Grant{}, err
		}
	}
	return authz.Grant{Verb: v, Scope: authz.Scope{Network: network, App: app}}, nil
}

// names reports whether a line is about a person.
func (r rule) names(p Person) bool {
	switch r.by {
	case byUser:
		return r.name == p.Username
	case bySubject:
		return r.name == p.Subject
	case byGroup:
		return slices.Contains(p.Groups, r.name)
	}
	return false
}

// give returns a person with what the roles grant, and by which of the names. Denied: nothing, or a
// line shuts the person out.
func (r *Roles) give(p Person) (Person, error) {
	p.By, p.Grants = nil, nil
	for _, one := range r.rules {
		if !one.names(p) {
			continue
		}
		if one.deny {
			return p, errs.New(errs.Denied, "the server's roles shut out %s %q", one.by, one.name).
				WithRemedy("ask an operator why")
		}
		if by := string(one.by) + " " + one.name; !slices.Contains(p.By, by) {
			p.By = append(p.By, by)
		}
		for _, g := range one.grants {
			if !slices.Contains(p.Grants, g) {
				p.Grants = append(p.Grants, g)
			}
		}
	}
	if len(p.Grants) == 0 {
		return p, errs.New(errs.Denied,
			"you are signed in as %s, and the server's roles name neither you nor a group of yours (%s)",
			p.Name(), p.groups()).
			WithRemedy("ask an operator for a line in the server's --oidc-roles file")
	}
	return p, nil
}
