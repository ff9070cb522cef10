package machine

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// When the store stalls, the machine's requests wait, and would fail at the engine's bound, one
// minute. The file system would then turn read-only, and programs would fail in untested ways. So
// the machine's processes are frozen long before that, and the engine then lets its requests wait
// without a limit. When the store is back, everything continues where it was.
const (
	// pauseAfter is how long a request must have waited for a stalled store before the machine is
	// frozen: long enough to ignore a short stall, and far below the engine's bound.
	pauseAfter = 5 * time.Second
	stallRetry = time.Second // after blockd could not be asked
)

// watchStall freezes and thaws the machine as the store stalls and recovers, until ctx ends. A
// machine that an earlier platformd left frozen was thawed when its container was adopted, and is
// frozen again here if the stall goes on.
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
		// AwaitStall returns it again, because it still differs from the last one
		if backoff.Sleep(ctx, stallRetry) != nil {
			return nil
		}
	}
	return nil
}

// applyStall freezes or thaws the machine according to the stall, and records the stall in the
// state.
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

// runs reports whether the machine is in a state in which its processes may be frozen. A machine
// that is starting or stopping may simply wait for its disk.
func (p *Platform) runs() bool {
	now, _ := p.status.get()
	st := now.Health.State
	return !now.ReleaseAsked && (st == guestapi.StateRunning || st == guestapi.StateHealthy)
}

// endStall thaws the machine and ends the hold of its disk's requests.
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

// stallError returns the error that says what a machine with a stalled store waits for; nil if the
// store hasn't stalled.
func stallError(s *fleet.DiskStall, what string) error {
	if s == nil {
		return nil
	}
	return errs.New(errs.Unavailable,
		"%s: its disk has waited for the object store since %s (%s): %s",
		what, s.Since.UTC().Format(time.RFC3339), s.Operation, s.Reason).
		WithRemedy("%s; it goes on by itself when the store does", s.Remedy)
}

// pausedError returns the error for a call that a frozen machine can't answer.
func pausedError(s *fleet.DiskStall) error {
	if s == nil || !s.Paused {
		return nil
	}
	return stallError(s, "the machine is paused")
}

// awaitUnpaused waits until a frozen machine has been thawed, so that its processes can be stopped
// properly. Meanwhile the state says why it waits.
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

// sayWhy records in the state why something can't be done yet.
func (p *Platform) sayWhy(err error) error {
	return p.status.update(func(s *saved) {
		s.Health.Error, s.Health.ErrorKind, s.Health.Remedy = err.Error(), string(errs.KindOf(err)),
			errs.RemedyOf(err)
	})
}
