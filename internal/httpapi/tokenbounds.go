package httpapi

import (
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TokenBounds is what each token may ask of the API, so that one harms nobody else. Operators'
// tokens have no bound: with one there must always be a way in.
type TokenBounds struct {
	Calls float64 // a second; twice as many at once. 0: no bound
	Open  int     // calls at a time, with execs, watches and streams. 0: no bound
}

// tokenUse is how much of its bounds each token uses. Safe for concurrent use.
type tokenUse struct {
	bounds TokenBounds
	mu     sync.Mutex
	of     map[fleet.TokenID]*use
}

type use struct {
	calls *rate.Limiter
	open  int
}

func newTokenUse(b TokenBounds) *tokenUse {
	return &tokenUse{bounds: b, of: map[fleet.TokenID]*use{}}
}

// enter counts a call of a token until leave is called. Unavailable: the token is at a bound.
func (t *tokenUse) enter(token fleet.Token, now time.Time) (leave func(), err error) {
	if token.ID == "" {
		return func() {}, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.of[token.ID]
	if u == nil {
		t.forget(now)
		u = &use{calls: rate.NewLimiter(rate.Inf, 0)}
		if t.bounds.Calls > 0 {
			u.calls = rate.NewLimiter(rate.Limit(t.bounds.Calls), burst(t.bounds.Calls))
		}
		t.of[token.ID] = u
	}
	if t.bounds.Open > 0 && u.open >= t.bounds.Open {
		return nil, errs.New(errs.Unavailable,
			"token %s (%s) has %d calls open, which is its bound", token.Name, token.ID, u.open).
			WithRemedy("end some: commands, logs and watches that run on it count")
	}
	if !u.calls.AllowN(now, 1) {
		return nil, errs.New(errs.Unavailable, "token %s (%s) makes more than %g calls a second",
			token.Name, token.ID, t.bounds.Calls).
			WithRemedy("ask less often, or wait with ?wait= and watches")
	}
	u.open++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		u.open--
	}, nil
}

func burst(calls float64) int { return max(1, int(2*calls)) }

// forget drops tokens that use nothing, so that there are no more of them than are in use.
func (t *tokenUse) forget(now time.Time) {
	for id, u := range t.of {
		rested := t.bounds.Calls <= 0 || u.calls.TokensAt(now) >= float64(u.calls.Burst())
		if u.open == 0 && rested {
			delete(t.of, id)
		}
	}
}

// tooMuch answers a call of a token that is at a bound.
func tooMuch(w http.ResponseWriter, err error) {
	w.Header().Set("Retry-After", "1")
	writeErrorStatus(w, http.StatusTooManyRequests, err)
}
