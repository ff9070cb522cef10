package machine

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// A store that stalls. Requests of the machine wait, and would fail at the engine's bound, a
// minute; the file system answers that by turning read-only, and programs by whatever they do when
// the impossible happens. So, long before, the machine's processes are frozen, and the engine is
// told that nobody minds the wait any more. When the store is back all goes on where it was.

const (
	// pauseAfter is how long something in the machine has waited for a stalled store when its
	// processes are frozen: a short stall is only slow, and the bound is far.
	pauseAfter = 5 * time.Second
	stallRetry = time.Second // after blockd could not be asked
)

// watchStall follows the store's stalls until ctx ends. What an earlier platformd left frozen was
// thawed when its container was taken over, and is frozen again if the stall goes on.
func (p *Platform) watchStall(ctx context.Context) error {
	if p.awaitBlockd(ctx) != nil {
		return nil // watchDisk tells why
	}
	begin, _ := p.status.get()
	last := begin.Health.Stall // the newest that was acted upon
	if last == nil {
		if err := p.block.HoldIO(ctx, false); err != nil && ctx.Err() == nil {
			p.log.WarnContext(ctx, "wait for the store not bounded", "error", err)
		}
	}
	for ctx.Err() == nil {
		now, err := p.block.AwaitStall(ctx, last)
		if err == nil {
			err = p.applyStall(ctx, last, now)
		}
		if err == nil {
			last = now
			continue
		}
		if ctx.Err() == nil {
			p.log.WarnContext(ctx, "stall of the store not handled", "error", err)
		}
		// then it is told again, because it still differs from the last
		if backoff.Sleep(ctx, stallRetry) != nil {
			return nil
		}
	}
	return nil
}

// applyStall freezes or thaws the machine as a stall demands, and tells of it.
func (p *Platform) applyStall(ctx context.Context, last, s *fleet.DiskStall) error {
	if s == nil {
		return p.endStall(ctx, last)
	}
	waited := !s.HeldSince.IsZero() && time.Since(s.HeldSince) >= pauseAfter
	if s.Paused = last != nil && last.Paused; waited || s.Paused {
		if err := p.block.HoldIO(ctx, true); err != nil {
			return err
		}
		if c := p.container.peek(); c != nil && p.runs() {
			if err := c.Freeze(); err != nil {
				return err
			}
			s.Paused = true
		}
	}
	if last != nil && s.Paused == last.Paused && s.Since.Equal(last.Since) &&
		s.HeldSince.IsZero() == last.HeldSince.IsZero() && s.Kind == last.Kind {
		return nil
	}
	p.log.WarnContext(ctx, "the disk's store has stalled", "since", s.Since, "operation",
		s.Operation, "reason", s.Reason, "paused", s.Paused)
	return p.status.update(func(sv *saved) { sv.Health.Stall = s })
}

// runs reports whether the machine is one whose processes may be frozen. One that starts or is
// stopping waits for the disk, and does nothing wrong by that.
func (p *Platform) runs() bool {
	now, _ := p.status.get()
	st := now.Health.State
	return !now.Release && (st == guestapi.StateRunning || st == guestapi.StateHealthy)
}

// endStall lets everything go on.
func (p *Platform) endStall(ctx context.Context, last *fleet.DiskStall) error {
	if c := p.container.peek(); c != nil {
		if err := c.Thaw(); err != nil {
			return err
		}
	}
	if err := p.block.HoldIO(ctx, false); err != nil {
		return err
	}
	if last != nil {
		p.log.WarnContext(ctx, "the disk's store answers again", "stalled_ms",
			time.Since(last.Since).Milliseconds(), "paused", last.Paused)
	}
	return p.status.update(func(sv *saved) { sv.Health.Stall = nil })
}

// stallError says what a machine waits for whose store has stalled; nil if it hasn't.
func stallError(s *fleet.DiskStall, what string) error {
	if s == nil {
		return nil
	}
	return errs.New(errs.Unavailable,
		"%s: its disk has waited for the object store since %s (%s): %s",
		what, s.Since.UTC().Format(time.RFC3339), s.Operation, s.Reason).
		WithRemedy("%s; it goes on by itself when the store does", s.Remedy)
}

// pausedError refuses what can't be done with a machine whose processes are frozen.
func pausedError(s *fleet.DiskStall) error {
	if s == nil || !s.Paused {
		return nil
	}
	return stallError(s, "the machine is paused")
}

// awaitUnpaused waits until a machine that is paused goes on, so that its processes are asked to
// stop and not cut off. Meanwhile the state says so.
func (p *Platform) awaitUnpaused(ctx context.Context) error {
	for told := false; ctx.Err() == nil; {
		now, changed := p.status.get()
		err := pausedError(now.Health.Stall)
		if err == nil || now.Health.State.Final() {
			return nil
		}
		if !told {
			told = true
			if err := p.sayWhy(err); err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

// sayWhy notes what keeps something from being done.
func (p *Platform) sayWhy(err error) error {
	return p.status.update(func(s *saved) {
		s.Health.Error, s.Health.ErrorKind, s.Health.Remedy = err.Error(), string(errs.KindOf(err)),
			errs.RemedyOf(err)
	})
}
