package httpapi

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// endsWithin is how long a call goes on at most after its token has ended.
const endsWithin = time.Second

// running is the calls that run on tokens which can end.
type running struct {
	mu    sync.Mutex
	calls map[fleet.TokenID]map[*context.CancelCauseFunc]bool
}

// add returns a context that ends, with the reason as its cause, when the token ends: so an exec, a
// watch or a stream doesn't outlive it. No token, no end.
func (r *running) add(ctx context.Context, id fleet.TokenID) (context.Context,
	context.CancelFunc) {
	if id == "" {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.calls == nil {
		r.calls = map[fleet.TokenID]map[*context.CancelCauseFunc]bool{}
	}
	if r.calls[id] == nil {
		r.calls[id] = map[*context.CancelCauseFunc]bool{}
	}
	r.calls[id][&cancel] = true
	return ctx, func() {
		cancel(nil)
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.calls[id], &cancel)
		if len(r.calls[id]) == 0 {
			delete(r.calls, id)
		}
	}
}

func (r *running) tokens() []fleet.TokenID {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []fleet.TokenID
	for id := range r.calls {
		ids = append(ids, id)
	}
	return ids
}

// end ends all calls of a token.
func (r *running) end(id fleet.TokenID, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for cancel := range r.calls[id] {
		(*cancel)(why)
	}
}

// endCalls ends the calls of tokens that have ended, until ctx ends.
func (a *API) endCalls(ctx context.Context) error {
	tick := time.NewTicker(endsWithin)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			for _, id := range a.running.tokens() {
				t, err := a.deps.Tokens.Token(id)
				switch {
				case errs.Is(err, errs.NotFound):
					err = foreignToken()
				case err == nil:
					err = ended(t, now)
				default: // nobody knows now
					continue
				}
				if err != nil {
					a.running.end(id, err)
				}
			}
		}
	}
}
