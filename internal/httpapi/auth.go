package httpapi

import (
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluice-platform/sluice/internal/authz"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

// callers knows who asks. Nothing of it does I/O.
type callers struct {
	operator atomic.Pointer[[]string] // all of them count
	scraper  string                   // "": there is none
	tokens   fleet.Tokens
	used     usedTokens
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

func newCallers(cfg Config, tokens fleet.Tokens) (*callers, error) {
	if s := cfg.ScrapeToken; s != "" && len(s) < minToken {
		return nil, errs.New(errs.Invalid,
			"the token for metrics is too short").
			WithRemedy("give it at least %d characters of its own", minToken)
	}
	c := &callers{scraper: cfg.ScrapeToken, tokens: tokens,
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
func (c *callers) who(r *http.Request) (authz.Subject, fleet.Token, error) {
	token := jsonhttp.Bearer(r)
	isOperator := c.isOperator(token)
	isScraper := jsonhttp.SameToken(token, c.scraper)
	switch {
	case isOperator:
		return authz.Fleetwide(authz.Operator), fleet.Token{}, nil
	case isWorker(r):
		return authz.Subject{Kind: authz.Worker, Name: string(authz.Worker)}, fleet.Token{}, nil
	case isScraper:
		return authz.Subject{Kind: authz.Scraper, Name: string(authz.Scraper)}, fleet.Token{}, nil
	case authz.LooksLikeToken(token):
		return c.holder(token, time.Now())
	}
	return authz.Subject{Kind: authz.Anonymous}, fleet.Token{}, noToken(r)
}

// holder returns who has a token that was made for a person or program.
func (c *callers) holder(text string, now time.Time) (authz.Subject, fleet.Token, error) {
	nobody := authz.Subject{Kind: authz.Anonymous}
	p, whole := authz.ParseToken(text)
	if !whole {
		return nobody, fleet.Token{}, errs.New(errs.Denied,
			"the token that came with the request was cut or misspelt: its checksum is wrong").
			WithRemedy("copy it again, whole, from slt_ on")
	}
	t, err := c.tokens.Token(fleet.TokenID(p.ID))
	if errs.Is(err, errs.NotFound) || err == nil && !p.Is(t.Hash) {
		return nobody, fleet.Token{}, foreignToken()
	}
	if err != nil {
		return nobody, fleet.Token{}, err
	}
	if err := ended(t, now); err != nil {
		return nobody, t, err
	}
	c.used.note(t, now)
	return subjectOf(t), t, nil
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
