package httpapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// role is who may call a route.
type role string

const (
	roleOperator role = "operator"
	roleWorker   role = "worker"
	roleScraper  role = "metrics" // metrics alone; an operator may do that, too
	roleAnybody  role = "anybody" // no token: health and the API's own description
)

// tokens compares bearer tokens in constant time: it hashes both sides, so that lengths don't show.
type tokens struct {
	operator, worker, scraper [sha256.Size]byte
	scrapes                   bool // there is a token for it
}

func newTokens(operator, worker, scraper string) (tokens, error) {
	if len(operator) < 16 || len(worker) < 16 {
		return tokens{}, errs.New(errs.Invalid,
			"operator and worker tokens must have at least 16 characters")
	}
	if operator == worker {
		return tokens{}, errs.New(errs.Invalid,
			"the operator token and the worker token are the same").
			WithRemedy("give workers a token of their own")
	}
	if scraper != "" && (len(scraper) < 16 || scraper == operator || scraper == worker) {
		return tokens{}, errs.New(errs.Invalid,
			"the token for metrics is too short, or another token, too").
			WithRemedy("give it at least 16 characters of its own")
	}
	return tokens{operator: sha256.Sum256([]byte(operator)), worker: sha256.Sum256([]byte(worker)),
		scraper: sha256.Sum256([]byte(scraper)), scrapes: scraper != ""}, nil
}

// roleOf returns the role that the request's token has, "" for none.
func (t *tokens) roleOf(r *http.Request) role {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
	isOperator := subtle.ConstantTimeCompare(sum[:], t.operator[:])
	isWorker := subtle.ConstantTimeCompare(sum[:], t.worker[:])
	isScraper := subtle.ConstantTimeCompare(sum[:], t.scraper[:])
	switch {
	case isOperator == 1:
		return roleOperator
	case isWorker == 1:
		return roleWorker
	case t.scrapes && isScraper == 1:
		return roleScraper
	default:
		return ""
	}
}

// authorize wraps a handler so that only callers with a role reach it.
func (a *API) authorize(need role, next http.HandlerFunc) http.HandlerFunc {
	if need == roleAnybody {
		return next
	}
	return func(w http.ResponseWriter, r *http.Request) {
		switch have := a.tokens.roleOf(r); {
		case have == need, need == roleScraper && have == roleOperator:
			next(w, r)
		case have == "":
			w.Header().Set("WWW-Authenticate", `Bearer realm="sluice"`)
			writeErrorStatus(w, http.StatusUnauthorized, noToken(r))
		default:
			writeError(w, errs.New(errs.Denied, "a %s token may not call this", have).
				WithRemedy("use the fleet's %s token", need))
		}
	}
}

// noToken tells a request without a token from one with a token that isn't this fleet's: what to do
// differs.
func noToken(r *http.Request) error {
	if r.Header.Get("Authorization") == "" {
		return errs.New(errs.Denied, "no token came with the request").
			WithRemedy("send Authorization: Bearer TOKEN, with the operator token of this fleet")
	}
	return errs.New(errs.Denied, "the token that came with the request is not this fleet's").
		WithRemedy(
			"check SLUICE_TOKEN, or that --dir or SLUICE_DIR names the directory of this fleet")
}
