package disk

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// turn is the right to do something that only one may do at a time. Whoever takes it gives it back.
type turn chan struct{}

func newTurn() turn {
	t := make(turn, 1)
	t.give()
	return t
}

// take returns when the turn is the caller's. Unavailable: ctx ended before; what says what the
// caller waited for.
func (t turn) take(ctx context.Context, what string) error {
	select {
	case <-t:
		return nil
	case <-ctx.Done():
		return errs.Wrap(errs.Unavailable, ctx.Err(), "wait for %s", what)
	}
}

func (t turn) give() { t <- struct{}{} }

// signal wakes one background loop. Any number of notifications wake it once.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

// notify wakes the loop, or has it run once more if it is at work.
func (s signal) notify() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// checkpointRetry is the pause after a map checkpoint that could not be written.
const checkpointRetry = time.Second

// due waits for a signal or for tick, either of which may be nil. It reports false when the disk
// has stopped.
func (d *Disk) due(ctx context.Context, wake signal, tick <-chan time.Time) bool {
	select {
	case <-ctx.Done():
		return false
	case <-d.pipe.stopped:
		return false
	case <-wake:
	case <-tick:
	}
	return true
}
