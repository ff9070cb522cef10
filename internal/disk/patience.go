package disk

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// patience is for how long the store is waited for. Time in which nobody would notice doesn't count. Safe for
// concurrent use.
type patience struct {
	mu    sync.Mutex
	on    bool
	since time.Time
	sum   time.Duration // of ended holds
}

func (p *patience) hold(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.on == on {
		return
	}
	if p.on = on; on {
		p.since = time.Now()
	} else {
		p.sum += time.Since(p.since)
	}
}

// held returns how long it has been held, in all.
func (p *patience) held() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.on {
		return p.sum + time.Since(p.since)
	}
	return p.sum
}

// wait is one wait for the store.
type wait struct {
	p     *patience
	began time.Time
	held  time.Duration // when it began
}

func (p *patience) start() wait { return wait{p: p, began: time.Now(), held: p.held()} }

// spent returns how much of it counts.
func (w wait) spent() time.Duration { return time.Since(w.began) - (w.p.held() - w.held) }

// errOutOfPatience ends a context of within.
var errOutOfPatience = errs.New(errs.Unavailable, "the store was waited for long enough")

// heldLook is how often a wait that has run out but for a hold is looked at.
const heldLook = 50 * time.Millisecond

// within returns a context that ends when the store was waited for that long; with a bound below zero, never.
func (p *patience) within(ctx context.Context, bound time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := func() { cancel(context.Canceled) }
	if bound < 0 {
		return ctx, stop
	}
	w := p.start()
	var mu sync.Mutex
	var t *time.Timer
	mu.Lock()
	defer mu.Unlock()
	t = time.AfterFunc(bound, func() {
		if left := bound - w.spent(); left > 0 {
			mu.Lock()
			defer mu.Unlock()
			if ctx.Err() == nil {
				t.Reset(max(left, heldLook))
			}
			return
		}
		cancel(errOutOfPatience)
	})
	return ctx, func() {
		stop()
		mu.Lock()
		defer mu.Unlock()
		t.Stop()
	}
}
