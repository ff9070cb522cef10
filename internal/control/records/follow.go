package records

import (
	"context"
	"fmt"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Load reads the whole state anew. Follow does it by itself.
func (r *Records) Load(ctx context.Context) error {
	_, err := r.load(ctx)
	return err
}

// load returns the revision that it read.
func (r *Records) load(ctx context.Context) (int64, error) {
	kvs, rev, err := r.cfg.Store.List(ctx, root)
	if err != nil {
		return 0, err
	}
	var changed []Change
	r.mu.Lock()
	err = r.replaceLocked(kvs, rev, &changed)
	r.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if !r.loaded.Load() {
		if err := r.recount(ctx); err != nil {
			return 0, fmt.Errorf("count what is used: %w", err)
		}
	}
	r.loaded.Store(true)
	r.cfg.Changed(changed)
	return rev, nil
}

// Follow reads the state and keeps the copy up with what others write, until ctx ends. It returns
// nil then, and Corrupt for a record that can't be read; anything else is tried again.
func (r *Records) Follow(ctx context.Context) error {
	for {
		err := r.followOnce(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errs.Is(err, errs.Corrupt) {
			return err
		}
		r.cfg.Log.WarnContext(ctx, "state not followed", "error", err)
		if backoff.Sleep(ctx, r.cfg.Retry) != nil {
			return nil
		}
	}
}

// followOnce reads the state and watches it, as often as the watch merely breaks.
func (r *Records) followOnce(ctx context.Context) error {
	rev, err := r.load(ctx)
	for err == nil {
		var unread error // Watch returns nil when it is told to end
		err = r.cfg.Store.Watch(ctx, root, rev, func(b state.Batch) bool {
			if unread = r.apply(b.Events...); unread != nil {
				return false
			}
			rev = b.Revision
			r.mu.Lock()
			r.forgetLocked(rev)
			r.mu.Unlock()
			return true
		})
		if unread != nil {
			return unread
		}
		if errs.Is(err, errs.Unavailable) && ctx.Err() == nil {
			err = backoff.Sleep(ctx, r.cfg.Retry)
		}
	}
	return err
}
