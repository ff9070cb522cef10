package main

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
func (h *held) outlive(ctx context.Context, dir string, why error) error {
	h.tellEnded(why,
		"%s is cut off from its disk %s, gives I/O errors, and stays mounted, so that nothing is written into "+
			"the directory beneath: %v\n  try: end who uses it, and then: umount %s\n", dir,
		h.ref.url, why, dir)
	tick := time.NewTicker(mountLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return errors.Join(why, h.unmount(ctx, dir))
		case <-tick.C:
			if there, _, err := isMounted(h.record.BlockDevice, dir); err != nil || !there {
				return errors.Join(why, err)
			}
		}
	}
}

// outliveDevice does the same for a block device without a mount of ours. Its path would soon be
// another disk's, and who opens it by that path would write there.
func (h *held) outliveDevice(ctx context.Context, front frontend.Shown, why error) error {
	path := front.BlockDevice()
	h.tellEnded(why,
		"%s is cut off from its disk %s, and gives I/O errors until it is detached: %v\n"+
			"  try: end who uses it, and then: sluice disk detach %s\n", path, h.ref.url, why, path)
	select {
	case <-ctx.Done():
		return errors.Join(why, h.untilUnused(ctx))
	case <-front.Done():
		return why
	}
}

// tellEnded says so on stderr, and to whoever asks later.
func (h *held) tellEnded(why error, text string, args ...any) {
	fmt.Fprintf(h.d.stderr, text, args...)
	h.record.Ended = why.Error()
	if errs.Is(why, errs.Fenced) {
		h.record.Ended = "it was taken over: " + h.record.Ended
	}
	if err := h.d.registry().Put(&h.record); err != nil {
		fmt.Fprintf(h.d.stderr, "disk info will not know it: %v\n", err)
	}
}

// uncover unmounts what killed processes have left on dir, below the mount of ours, which has been
// undone. Until then that kept the directory beneath out of reach.
func uncover(dir, ours string) error {
	for {
		m, err := mountAt(dir)
		if err != nil || m == nil || m.source == ours || !m.dead() {
			return err
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return errs.Wrap(errs.Unavailable, err,
				"unmount what a killed process has left on %s", dir)
		}
	}
}
