package machine

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	// blockdComesUp is long even for a busy host. A blockd that ends is init's to notice.
	blockdComesUp = time.Minute
	blockdRetry   = 5 * time.Millisecond
)

// watchDisk ends the machine when its disk is fenced or blockd has ended. Acknowledged data is in
// the store, and only the next attach has it.
func (p *Platform) watchDisk(ctx context.Context) error {
	if err := p.awaitBlockd(ctx); err != nil {
		return p.ended(ctx, err)
	}
	return p.ended(ctx, p.block.AwaitStopped(ctx))
}

func (p *Platform) ended(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		p.fail(ctx, endOfDisk(err, p.ownKills.Recent(oomRecent)))
	}
	return nil
}

// endOfDisk returns why a machine has lost its disk. outOfMemory: the kernel has just killed a
// process of the platform.
func endOfDisk(err error, outOfMemory bool) error {
	switch {
	case errs.Is(err, errs.Fenced):
		return errs.Wrap(errs.Fenced, err, "the store refuses this disk's writes").
			WithRemedy("nothing is to be done here: the machine belongs to a newer owner")
	case !errs.Is(err, errs.Unavailable):
		return err
	case outOfMemory:
		return errs.New(errs.Unavailable, "the process that holds the disk was killed: %s",
			guestapi.PlatformOutOfMemory()).
			WithRemedy(
				"nothing is to be done: the machine is started again, and what was acknowledged is in the store")
	}
	return errs.Wrap(errs.Unavailable, err, "the process that holds the disk has ended").
		WithRemedy("start the machine again: what was acknowledged is in the store")
}

// awaitBlockd returns once blockd answers, which init starts at the same time as this. Whatever may
// be asked of a VM that has just booted waits for it.
func (p *Platform) awaitBlockd(ctx context.Context) error {
	give, cancel := context.WithTimeout(ctx, blockdComesUp)
	defer cancel()
	for {
		_, err := p.block.Info(give)
		if err == nil {
			return nil
		}
		if backoff.Sleep(give, blockdRetry) != nil {
			return err
		}
	}
}

// watchContainer ends the machine when its container ends unexpectedly.
func (p *Platform) watchContainer(ctx context.Context) error {
	select {
	case <-p.container.filled:
	case <-ctx.Done():
		return nil
	}
	if err := p.container.peek().Wait(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	if ctx.Err() != nil || p.killing.Load() {
		return nil
	}
	if info, err := p.block.Info(ctx); err == nil && info.Fenced {
		return nil // watchDisk tells why
	}
	p.fail(ctx, errs.New(errs.Unavailable, "the inner container has ended by itself"))
	return nil
}
