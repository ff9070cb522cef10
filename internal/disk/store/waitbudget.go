package store

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// waitBudget measures time spent waiting for the store, without the time during which I/O is held
// (Client.HoldIO). Safe for concurrent use.
type waitBudget struct {
	mu    sync.Mutex
	on    bool
	since time.Time
	sum   time.Duration // of ended holds
}

func (b *waitBudget) hold(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.on == on {
		return
	}
	if b.on = on; on {
		b.since = time.Now()
	} else {
		b.sum += time.Since(b.since)
	}
}

// held returns how long I/O has been held, in all.
func (b *waitBudget) held() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.on {
		return b.sum + time.Since(b.since)
	}
	return b.sum
}

// wait is one wait for the store.
type wait struct {
	budget *waitBudget
	began  time.Time
	held   time.Duration // when it began
}

func (b *waitBudget) start() wait { return wait{budget: b, began: time.Now(), held: b.held()} }

// spent returns how much of the wait counts.
func (w wait) spent() time.Duration { return time.Since(w.began) - (w.budget.held() - w.held) }

// errWaitedOut ends a context of within.
var errWaitedOut = errs.New(errs.Unavailable, "the store was waited for long enough")

// WaitedOut reports whether a context of Client.Within has ended because of its bound.
func WaitedOut(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errWaitedOut) }

// recheckEvery is how often an expired wait under a hold is examined again.
const recheckEvery = 50 * time.Millisecond

// within returns a context that ends when the store was waited for that long. With a bound below
// zero it never does.
func (b *waitBudget) within(
	ctx context.Context, bound time.Duration,
) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := func() { cancel(context.Canceled) }
	if bound < 0 {
		return ctx, stop
	}
	w := b.start()
	var mu sync.Mutex
	var t *time.Timer
	mu.Lock()
	defer mu.Unlock()
	t = time.AfterFunc(bound, func() {
		if left := bound - w.spent(); left > 0 {
			mu.Lock()
			defer mu.Unlock()
			if ctx.Err() == nil {
				t.Reset(max(left, recheckEvery))
			}
			return
		}
		cancel(errWaitedOut)
	})
	return ctx, func() {
		stop()
		mu.Lock()
		defer mu.Unlock()
		t.Stop()
	}
}
