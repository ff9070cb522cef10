package httpapi

import (
	"net/http"

	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

// role is who may call a route.
type role string

const (
	roleOperator role = "operator"
	roleWorker   role = "worker"
	roleScraper  role = "metrics" // metrics alone; an operator may do that, too
	roleAnybody  role = "anybody" // no token: health and the API's own description
)

// tokens are those by which callers are known; no scraper is where its token is "".
type tokens struct{ operator, worker, scraper string }

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
	return tokens{operator: operator, worker: worker, scraper: scraper}, nil
}

// roleOf returns the role that the request's token has, "" for none.
func (t *tokens) roleOf(r *http.Request) role {
	token := jsonhttp.Bearer(r)
	isOperator := jsonhttp.SameToken(token, t.operator)
	isWorker := jsonhttp.SameToken(token, t.worker)
	isScraper := jsonhttp.SameToken(token, t.scraper)
	switch {
	case isOperator:
		return roleOperator
	case isWorker:
		return roleWorker
	case isScraper:
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
