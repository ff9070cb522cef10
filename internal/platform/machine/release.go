package machine

import (
	"context"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	killMargin    = 5 * time.Second // beyond the stop timeout, for slow SIGKILLs
	unmountWithin = 20 * time.Second
	earlyAfter    = 50 * time.Millisecond // a faster stop is not worth an extra flush
	retryPause    = 500 * time.Millisecond
)

// release stops the services, kills the container, unmounts the disk and closes it. It retries what
// fails for as long as the disk isn't fenced.
func (p *Platform) release(ctx context.Context, running *errgroup.Group) error {
	began := time.Now()
	now, _ := p.status.get()
	if c := p.container.peek(); c != nil && now.Bind != nil &&
		!p.services.started() && c.Entered() {
		// Adopt the services that an earlier platformd started, so that they get their stop signal.
		if err := p.runServices(ctx, running, now); err != nil {
			return err
		}
	}
	if err := p.status.update(func(s *saved) { reach(s, guestapi.StateStopping) }); err != nil {
		return err
	}
	if err := p.awaitUnpaused(ctx); err != nil {
		return err
	}
	p.stopServices(ctx)
	for ctx.Err() == nil {
		err := p.giveBack(ctx)
		switch {
		case err == nil:
			p.took(ctx, guestapi.StepRelease, "", began)
			return p.status.update(func(s *saved) { end(s, guestapi.StateReleased, nil) })
		case errs.Is(err, errs.Fenced):
			p.fail(ctx, err)
			return nil
		}
		now, _ := p.status.get()
		if now.Health.State.Final() {
			return nil
		}
		if waits := stallError(now.Health.Stall,
			"the machine can't be released yet"); waits != nil {
			err = waits
		}
		p.log.WarnContext(ctx, "release not done yet", "error", err)
		if err := p.sayWhy(err); err != nil {
			return err
		}
		if backoff.Sleep(ctx, retryPause) != nil {
			return nil
		}
	}
	return nil
}

// stopServices stops the services in order, within the machine's stop timeout. If that takes long,
// it writes out dirty data meanwhile. Otherwise the unmount does that alone, in fewer requests.
func (p *Platform) stopServices(ctx context.Context) {
	now, _ := p.status.get()
	start := time.Now()
	stopped, cancel := context.WithCancel(ctx)
	var early errgroup.Group
	early.Go(func() error { return p.writeOutEarly(stopped, ctx) })
	err := p.services.stop(ctx, now, killMargin)
	cancel()
	p.took(ctx, guestapi.StepStop, guestapi.StepRelease, start)
	if err != nil {
		p.log.WarnContext(ctx, "services not stopped in time", "error", err)
	}
	if err := early.Wait(); err != nil {
		p.log.DebugContext(ctx, "early write-out", "error", err)
	}
}

// writeOutEarly writes out dirty data, unless until ends soon.
func (p *Platform) writeOutEarly(until, ctx context.Context) error {
	for _, do := range []func() error{
		func() error { return syncDir(p.diskDir()) },
		func() error { return p.block.Settle(ctx) },
	} {
		timer := time.NewTimer(earlyAfter)
		select {
		case <-until.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// giveBack kills the container, unmounts the disk and closes it. Idempotent.
func (p *Platform) giveBack(ctx context.Context) error {
	start := time.Now()
	p.killing.Store(true)
	if c := p.container.peek(); c != nil {
		killing, cancel := context.WithTimeout(ctx, unmountWithin)
		err := c.Kill(killing)
		cancel()
		if err != nil {
			return errs.Wrap(errs.Unavailable, err, "end the inner container")
		}
	}
	p.took(ctx, guestapi.StepKill, guestapi.StepRelease, start)
	start = time.Now()
	info, err := p.block.Info(ctx)
	if err != nil {
		return err
	}
	if info.Attached {
		unmounting, cancel := context.WithTimeout(ctx, unmountWithin)
		defer cancel()
		if err := p.fs.unmount(unmounting, info.Device); err != nil {
			return err
		}
		p.took(ctx, guestapi.StepUnmount, guestapi.StepRelease, start)
		start = time.Now()
	}
	if info, err = p.block.Close(ctx); err != nil {
		return err
	}
	p.took(ctx, guestapi.StepClose, guestapi.StepRelease, start)
	return p.status.update(func(s *saved) {
		s.Health.Disk, s.Health.Flushes = info.Report, info.Flushes
		if !s.Health.State.Final() {
			s.Health.Error, s.Health.ErrorKind, s.Health.Remedy = "", "", "" // of earlier attempts
		}
		addBlockSteps(s, guestapi.StepClose, info.Steps)
	})
}

// syncDir starts writing out the file system at dir, if one is mounted there.
func syncDir(dir string) error {
	mounted, err := frontend.IsMountPoint(dir)
	if err != nil || !mounted {
		return err
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// tearDown removes what is left of a failed machine. It kills the processes at once, and closes the
// disk cleanly if that is possible; a fenced disk is abandoned.
func (p *Platform) tearDown(ctx context.Context, _ *errgroup.Group) error {
	p.services.abort()
	now, _ := p.status.get()
	if now.Health.State == guestapi.StateFenced {
		if c := p.container.peek(); c != nil {
			if err := c.Kill(ctx); err != nil {
				p.log.ErrorContext(ctx, "fenced container not killed", "error", err)
			}
		}
		// The write-out of this unmount fails, as any write to a fenced disk.
		if err := p.fs.drop(); err != nil {
			p.log.DebugContext(ctx, "fenced disk not unmounted", "error", err)
		}
		if _, err := p.block.Abandon(ctx); err != nil {
			p.log.WarnContext(ctx, "fenced disk not let go", "error", err)
		}
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, unmountWithin)
	defer cancel()
	if err := p.giveBack(bounded); err != nil && ctx.Err() == nil {
		p.log.WarnContext(ctx, "failed machine's disk not closed", "error", err)
	}
	return nil
}
