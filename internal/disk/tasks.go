package disk

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"
)

// tasks owns the goroutines of an attachment. After stop none is left and none can be started.
type tasks struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	stopped bool
	group   errgroup.Group
}

// newTasks returns an owner of goroutines. Its context outlives the call that made it, and ends
// with stop.
func newTasks(ctx context.Context) *tasks {
	t := &tasks{}
	t.ctx, t.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return t
}

// spawn runs f in a goroutine. It reports false after stop, and then doesn't.
func (t *tasks) spawn(f func(ctx context.Context)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return false
	}
	t.group.Go(func() error {
		f(t.ctx)
		return nil
	})
	return true
}

// stop cancels all goroutines and waits for their end.
func (t *tasks) stop() {
	t.mu.Lock()
	t.stopped = true
	t.mu.Unlock()
	t.cancel()
	_ = t.group.Wait() // tasks report through the disk, never here
}
