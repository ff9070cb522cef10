package machine

import (
	"context"
	"sync"

	"github.com/sluice-platform/sluice/internal/platform/inner"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// box has the container once there is one. Safe for concurrent use.
type box struct {
	filled chan struct{}

	mu        sync.Mutex
	container *inner.Container
}

func newBox() *box { return &box{filled: make(chan struct{})} }

// put may be called once.
func (b *box) put(c *inner.Container) {
	b.mu.Lock()
	b.container = c
	b.mu.Unlock()
	close(b.filled)
}

// peek returns the container, or nil.
func (b *box) peek() *inner.Container {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.container
}

// interrupter lets a release or a failure cancel what is going on. Safe for concurrent use.
type interrupter struct {
	done context.Context //nolint:containedctx // it is the flag itself, and has no values
	now  context.CancelFunc
}

func newInterrupter() *interrupter {
	done, now := context.WithCancel(context.Background())
	return &interrupter{done: done, now: now}
}

// context returns a context that ends with the interrupt, also with one that came before.
func (i *interrupter) context(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(i.done, func() {
		cancel(errs.New(errs.Unavailable, "the machine is being released or has failed"))
	})
	return ctx, func() {
		stop()
		cancel(context.Canceled)
	}
}
