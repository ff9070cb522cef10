package machine

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/platform/blockapi"
	"github.com/sluice-platform/sluice/internal/platform/watchdog"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/fuseabort"
)

// watchProgress ends the VM if blockd is stuck. Nothing in the VM could repair that, and everything
// that touches the disk would wait for ever. Acknowledged data is in the store, where the next VM
// finds it.
func (p *Platform) watchProgress(ctx context.Context) error {
	if p.awaitBlockd(ctx) != nil {
		return nil // watchDisk tells why
	}
	pid, err := p.block.PID(ctx)
	if err != nil {
		p.log.WarnContext(ctx, "a disk that is stuck would not be noticed", "error", err)
		return nil
	}
	var judge watchdog.Judge
	threads := watchdog.NewThreads(pid)
	tick := time.NewTicker(watchdog.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if why := judge.Add(p.sample(ctx, threads)); why != "" && ctx.Err() == nil {
			p.endStuck(ctx, pid, why)
			return nil
		}
	}
}

// sample asks blockd for its state, and reads what its threads do if it doesn't answer at once.
func (p *Platform) sample(ctx context.Context, threads *watchdog.Threads) watchdog.Sample {
	s := watchdog.Sample{At: time.Now()}
	asking, cancel := context.WithTimeout(ctx, watchdog.Interval/2)
	defer cancel()
	info, err := p.block.Info(asking)
	if err != nil {
		seen, err := threads.Observe()
		if err != nil && ctx.Err() == nil {
			// it has ended; watchDisk handles that
			p.log.DebugContext(ctx, "blockd's threads not seen", "error", err)
		}
		s.Stuck, s.Starved = seen.Stuck, seen.Starved
		return s
	}
	s.Answered = true
	s.Store, s.Waits = progress(info), info.Stall != nil
	if info.Device != "" {
		if s.Device, err = watchdog.ReadDevice(info.Device); err != nil {
			p.log.DebugContext(ctx, "progress of the disk not seen", "error", err)
		}
	}
	return s
}

// progress grows with everything that the store does for the disk.
func progress(info blockapi.Info) uint64 {
	r := info.Report
	return uint64(r.Requests) + uint64(r.BytesRead) + uint64(
		r.BytesWritten) //nolint:gosec // counts
}

// endStuck records why blockd is stuck, and ends it and thereby the VM. It first gives up the block
// device: a process can't be killed while it waits in the kernel for the device that it serves.
func (p *Platform) endStuck(ctx context.Context, pid int, why string) {
	p.killing.Store(true)
	p.fail(ctx, errs.New(errs.Unavailable,
		"the process that serves the machine's disk is stuck: %s", why).
		WithRemedy(
			"nothing is to be done: the machine is started again, and what was acknowledged is in the store"))
	if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		p.log.ErrorContext(ctx, "stuck process not killed", "error", err)
	}
	if err := p.giveUpDisk(pid); err != nil {
		p.log.ErrorContext(ctx, "disk of a stuck process not given up", "error", err)
	}
}

// giveUpDisk ends the FUSE connection of blockd, which takes the privileges of the kernel's owner.
func (p *Platform) giveUpDisk(pid int) error {
	if p.cfg.Broker != nil {
		return p.cfg.Broker.Abort()
	}
	_, err := fuseabort.Process(pid)
	return err
}
