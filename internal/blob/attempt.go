package blob

import (
	"context"
	"time"
)

// Attempt tells how long the store itself had of a request that went through something else, such
// as a store gateway. A driver fills it in before the request returns.
type Attempt struct {
	Told    bool          // by what is in between; else nothing is, or it didn't answer
	AtStore time.Duration // 0: it did not get there
}

type attemptKey struct{}

// WithAttempt returns a context of requests, one at a time, of which a is told.
func WithAttempt(ctx context.Context, a *Attempt) context.Context {
	return context.WithValue(ctx, attemptKey{}, a)
}

// TellAttempt tells who asked how long the store had of a request, if it wants to know.
func TellAttempt(ctx context.Context, atStore time.Duration) {
	if a, ok := ctx.Value(attemptKey{}).(*Attempt); ok {
		a.Told, a.AtStore = true, atStore
	}
}
