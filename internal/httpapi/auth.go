package httpapi

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluice-platform/sluice/internal/authz"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/signin"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

// callers knows who asks. Nothing of it does I/O.
type callers struct {
	operator atomic.Pointer[[]string] // all of them count
	scraper  string                   // "": there is none
	tokens   fleet.Tokens
	people   People // nil: nobody can sign in
	used     usedTokens
}

// People knows who signs in; see package signin.
type People interface {
	Person(ctx context.Context, idToken string) (signin.Person, error)
	Again(who signin.Person, now time.Time) (signin.Person, error)
	Offer() signin.Offer
}

// caller is who sent a request.
type caller struct {
	subject authz.Subject
	token   fleet.Token   // of a subject that has one; of a person what there is of one
	person  signin.Person // of one that has signed in
}

const minToken = 16 // characters of the tokens in files

// setOperator replaces the operator tokens by those in a text, one a line. Lines that are empty or
// begin with # don't count.
func (c *callers) setOperator(text string) error {
	var all []string
	for line := range strings.Lines(text) {
		token := strings.TrimSpace(line)
		if token == "" || token[0] == '#' {
			continue
		}
		if len(token) < minToken {
			return errs.New(errs.Invalid,
				"an operator token must have at least %d characters", minToken)
		}
		if token == c.scraper {
			return errs.New(errs.Invalid,
				"the operator token and that for metrics are the same").
				WithRemedy("give each a token of its own")
		}
		all = append(all, token)
	}
	if len(all) == 0 {
		return errs.New(errs.Invalid, "there is no operator token of at least %d characters",
			minToken)
	}
	c.operator.Store(&all)
	return nil
}

func newCallers(cfg Config, tokens fleet.Tokens, people People) (*callers, error) {
	if s := cfg.ScrapeToken; s != "" && len(s) < minToken {
		return nil, errs.New(errs.Invalid,
			"the token for metrics is too short").
			WithRemedy("give it at least %d characters of its own", minToken)
	}
	c := &callers{scraper: cfg.ScrapeToken, tokens: tokens, people: people,
		used: usedTokens{every: cfg.UsedEvery}}
	return c, c.setOperator(cfg.OperatorToken)
}

// isOperator compares with all of the operator tokens, whichever it is.
func (c *callers) isOperator(token string) bool {
	is := false
	for _, want := range *c.operator.Load() {
		is = jsonhttp.SameToken(token, want) || is
	}
	return is
}

// who returns who sent a request. Denied: nobody knows; Unavailable: nobody knows yet.
func (c *callers) who(r *http.Request) (caller, error) {
	token := jsonhttp.Bearer(r)
	isOperator := c.isOperator(token)
	isScraper := jsonhttp.SameToken(token, c.scraper)
	switch {
	case isOperator:
		return caller{subject: authz.Fleetwide(authz.Operator)}, nil
	case isWorker(r):
		return plainCaller(authz.Worker), nil
	case isScraper:
		return plainCaller(authz.Scraper), nil
	case authz.LooksLikeToken(token):
		return c.holder(token, time.Now())
	case c.people != nil && signin.LooksLikeIDToken(token):
		return c.somebody(r.Context(), token)
	}
	return nobody(), noToken(r)
}

func plainCaller(kind authz.Kind) caller {
	return caller{subject: authz.Subject{Kind: kind, Name: string(kind)}}
}

func nobody() caller { return caller{subject: authz.Subject{Kind: authz.Anonymous}} }

// somebody returns the person who has signed in with an ID token. What the fleet keeps of tokens
// there is for this one, too: it has an end, and bounds, which are the person's.
func (c *callers) somebody(ctx context.Context, idToken string) (caller, error) {
	p, err := c.people.Person(ctx, idToken)
	if err != nil {
		return nobody(), err
	}
	return caller{subject: subjectOfPerson(p), person: p,
		token: fleet.Token{ID: fleet.TokenID(string(authz.Person) + ":" + p.Subject),
			Name: p.Name(), ExpiresAt: p.Expires}}, nil
}

func subjectOfPerson(p signin.Person) authz.Subject {
	return authz.Subject{Kind: authz.Person, Name: p.Name(), Grants: p.Grants}
}

// holder returns who has a token that was made for a person or program.
func (c *callers) holder(text string, now time.Time) (caller, error) {
	p, whole := authz.ParseToken(text)
	if !whole {
		return nobody(), errs.New(errs.Denied,
			"the token that came with the request was cut or misspelt: its checksum is wrong").
			WithRemedy("copy it again, whole, from slt_ on")
	}
	t, err := c.tokens.Token(fleet.TokenID(p.ID))
	if errs.Is(err, errs.NotFound) || err == nil && !p.Is(t.Hash) {
		return nobody(), foreignToken()
	}
	if err != nil {
		return nobody(), err
	}
	if err := ended(t, now); err != nil {
		was := nobody()
		was.token = t // for the audit log
		return was, err
	}
	c.used.note(t, now)
	return caller{subject: subjectOf(t), token: t}, nil
}

// still returns why what a call was allowed for is allowed no more; nil: it goes on, or nobody
// knows now.
func (c *callers) still(of call, need authz.Verb, now time.Time) error {
	if of.subject.Kind == authz.Person {
		p, err := c.people.Again(of.person, now)
		if err != nil {
			return err
		}
		s := subjectOfPerson(p)
		if of.object.Class == authz.Some && !authz.Has(s, of.subject.Grants) {
			return errs.New(errs.Denied, "the server's roles let %s do less than before", s.Name).
				WithRemedy("call again")
		}
		return refusal(s, need, of.object)
	}
	t, err := c.tokens.Token(of.who.ID)
	switch {
	case errs.Is(err, errs.NotFound):
		return foreignToken()
	case err != nil:
		return nil
	}
	return ended(t, now)
}

// subjectOf returns who holds a token. A grant that this release doesn't understand grants nothing.
func subjectOf(t fleet.Token) authz.Subject {
	s := authz.Subject{Kind: authz.Holder, Name: t.Name, Token: string(t.ID)}
	for _, g := range t.Grants {
		if verb, err := authz.ParseVerb(g.Verb); err == nil {
			s.Grants = append(s.Grants, authz.Grant{Verb: verb,
				Scope: authz.Scope{Network: string(g.Network), App: string(g.App)}})
		}
	}
	return s
}

// ended returns why a token doesn't count; nil: it does.
func ended(t fleet.Token, now time.Time) error {
	switch at := t.EndedAt().UTC().Format(time.RFC3339); t.StateAt(now) {
	case fleet.TokenRevoked:
		return errs.New(errs.Denied, "token %s (%s) was revoked at %s", t.Name, t.ID, at).
			WithRemedy("ask who gave it to you for another")
	case fleet.TokenExpired:
		return errs.New(errs.Denied, "token %s (%s) expired at %s", t.Name, t.ID, at).
			WithRemedy("ask who gave it to you for another")
	case fleet.TokenLive:
	}
	return nil
}

// noToken tells a request without a token from one with a token that isn't this fleet's: what to do
// differs.
func noToken(r *http.Request) error {
	if r.Header.Get("Authorization") == "" {
		return errs.New(errs.Denied, "no token came with the request").
			WithRemedy("send Authorization: Bearer TOKEN, with a token of this fleet")
	}
	return foreignToken()
}

func foreignToken() error {
	return errs.New(errs.Denied, "the token that came with the request is not this fleet's").
		WithRemedy(
			"check SLUICE_TOKEN, or that --dir or SLUICE_DIR names the directory of this fleet")
}

// grantsOf returns a subject's grants in words, for an error that says what is missing.
func grantsOf(s authz.Subject) string {
	var words []string
	for _, g := range s.Grants {
		words = append(words, g.Verb.String()+" on "+g.Scope.String())
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}
