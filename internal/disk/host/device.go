package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func (s *Session) device(ctx context.Context) error {
	if err := frontend.EndOrphans(); err != nil {
		return err
	}
	front, err := frontend.Show(ctx, s.dev, s.cfg.FrontEnd,
		frontend.Config{Name: s.name, Logger: s.cfg.Logger})
	if err != nil {
		return err
	}
	s.front = front
	s.record.BlockDevice, s.record.FrontEnd = front.BlockDevice(), string(front.Kind())
	err = s.announce(ctx, front.BlockDevice(), func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return s.untilUnused(ctx)
		case <-s.fenced():
			return s.outliveDevice(ctx, front, s.writer.Err())
		case <-front.Done():
			return errs.New(errs.Unavailable, "the kernel has given up %s", front.BlockDevice())
		}
	})
	return errors.Join(err, front.Close(context.WithoutCancel(ctx)))
}

// untilUnused waits until the device is mounted nowhere, or another interrupt comes.
func (s *Session) untilUnused(ctx context.Context) error {
	again, stop := s.deps.Interrupts()
	defer stop()
	for told := false; ; told = true {
		there, _, err := isMounted(s.record.BlockDevice, "")
		if err != nil || !there {
			return err
		}
		if !told {
			fmt.Fprintf(s.deps.Stderr,
				"%s is mounted, and stays attached until it isn't; interrupt again to tear it away\n", s.record.BlockDevice)
		}
		select {
		case <-again:
			return nil
		case <-time.After(busyLook):
		}
	}
}
