package fsck

import (
	"context"
	"errors"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// hold keeps collectors from a disk while it is checked: what they delete, and they alone could
// have known to be garbage, would look like damage.
func (c *checker) hold(ctx context.Context, path string) error {
	if c.opts.Unpinned || c.onlyReach {
		return nil
	}
	h, err := disk.TakeHold(ctx, c.store, path, "fsck of "+c.path, c.opts.PinLease)
	if errs.Is(err, errs.Denied) {
		return errs.Wrap(errs.Denied, err, "a check keeps collectors from the disk by a pin").
			WithRemedy("allow writes below %s/pins/; or check with --no-pin, if no collector runs",
				path)
	}
	if err == nil {
		c.holds = append(c.holds, h)
	}
	return err
}

// held returns nil if nothing was collected meanwhile of what was looked at.
func (c *checker) held() (err error) {
	for _, h := range c.holds {
		err = errors.Join(err, h.Valid())
	}
	if err != nil {
		return errs.Wrap(errs.Conflict, err,
			"a collector may have deleted what was being checked").WithRemedy("check again")
	}
	return nil
}

// release ends the holds, also when the check was interrupted.
func (c *checker) release(ctx context.Context) {
	for _, h := range c.holds {
		h.Release(context.WithoutCancel(ctx))
	}
}
