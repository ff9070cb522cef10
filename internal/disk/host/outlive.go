package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// outlive keeps the mount of a disk that has stopped by itself, until somebody unmounts it, and
// returns why. Who writes there gets errors. Without the mount they would write, with success, into
// the directory beneath.
func (s *Session) outlive(ctx context.Context, dir string, why error) error {
	s.tellEnded(why,
		"%s is cut off from its disk %s, gives I/O errors, and stays mounted, so that nothing is written into "+
			"the directory beneath: %v\n  try: end who uses it, and then: umount %s\n", dir,
		s.ref.URL, why, dir)
	tick := time.NewTicker(mountLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return errors.Join(why, s.unmount(ctx, dir))
		case <-tick.C:
			if there, _, err := isMounted(s.record.BlockDevice, dir); err != nil || !there {
				return errors.Join(why, err)
			}
		}
	}
}

// outliveDevice does the same for a block device without a mount of ours. Its path would soon be
// another disk's, and who opens it by that path would write there.
func (s *Session) outliveDevice(ctx context.Context, front frontend.Shown, why error) error {
	path := front.BlockDevice()
	s.tellEnded(why,
		"%s is cut off from its disk %s, and gives I/O errors until it is detached: %v\n"+
			"  try: end who uses it, and then: sluice disk detach %s\n", path, s.ref.URL, why, path)
	select {
	case <-ctx.Done():
		return errors.Join(why, s.untilUnused(ctx))
	case <-front.Done():
		return why
	}
}

// tellEnded says so on stderr, and to whoever asks later.
func (s *Session) tellEnded(why error, text string, args ...any) {
	fmt.Fprintf(s.deps.Stderr, text, args...)
	s.record.Ended = why.Error()
	if errs.Is(why, errs.Fenced) {
		s.record.Ended = "it was taken over: " + s.record.Ended
	}
	if err := s.cfg.Registry.Put(&s.record); err != nil {
		fmt.Fprintf(s.deps.Stderr, "disk info will not know it: %v\n", err)
	}
}

// uncover unmounts what killed processes have left on dir, below the mount of ours, which has been
// undone. Until then that kept the directory beneath out of reach.
func uncover(dir, ours string) error {
	for {
		m, err := MountAt(dir)
		if err != nil || m == nil || m.Source == ours || !m.dead() {
			return err
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return errs.Wrap(errs.Unavailable, err,
				"unmount what a killed process has left on %s", dir)
		}
	}
}
