package httpapi

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/authz"
)

// endsWithin is how long a call goes on at most after what allowed it has ended.
const endsWithin = time.Second

// running is the calls that run on what can end: a token, or a sign-in.
type running struct {
	mu    sync.Mutex
	calls map[*runningCall]bool
}

type runningCall struct {
	over   func(now time.Time) error // why it may not go on
	cancel context.CancelCauseFunc
}

// end returns what says why a call may not go on; nil: it can't end.
func (a *API) end(c call, need authz.Verb) func(time.Time) error {
	if c.who.ID == "" {
		return nil
	}
	return func(now time.Time) error { return a.callers.still(c, need, now) }
}

// add returns a context that ends, with the reason as its cause, when over gives one: so an exec, a
// watch or a stream doesn't outlive what allowed it. nil: it doesn't end.
func (r *running) add(ctx context.Context, over func(time.Time) error) (context.Context,
	context.CancelFunc) {
	if over == nil {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	c := &runningCall{over, cancel}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.calls == nil {
		r.calls = map[*runningCall]bool{}
	}
	r.calls[c] = true
	return ctx, func() {
		cancel(nil)
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.calls, c)
	}
}

func (r *running) all() []*runningCall {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls := make([]*runningCall, 0, len(r.calls))
	for c := range r.calls {
		calls = append(calls, c)
	}
	return calls
}

// endCalls ends the calls that may not go on, until ctx ends.
func (a *API) endCalls(ctx context.Context) error {
	tick := time.NewTicker(endsWithin)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			for _, c := range a.running.all() {
				if err := c.over(now); err != nil {
					c.cancel(err)
				}
			}
		}
	}
}
