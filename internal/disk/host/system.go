package host

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// systemWait is what a system tool gets between being told to end and being ended.
const systemWait = 5 * time.Second

// system runs a tool of the operating system. An interrupt of this command doesn't reach it.
func system(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = systemWait
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrNotFound):
		return errs.Wrap(errs.Unsupported, err, "run %s", name).
			WithRemedy("install util-linux and coreutils")
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return errs.Wrap(errs.Unavailable, err, "%s: %s", name, strings.TrimSpace(stderr.String()))
}

// ext4Options are what an ext4 is mounted with to be written.
const ext4Options = "rw,noatime,errors=remount-ro"

// isEmpty reports whether a disk has no content at all: it was never written, or all of it was
// discarded.
func isEmpty(ctx context.Context, dev disk.Device) (bool, error) {
	x, ok := dev.(disk.Extents)
	if !ok {
		return false, nil
	}
	for off := int64(0); off < dev.Size(); {
		end, data, err := x.NextExtent(ctx, off, dev.Size())
		if data || err != nil {
			return false, err
		}
		off = end
	}
	return true, nil
}

// mountOptions looks at what file system a disk holds and returns the options to mount it with.
func mountOptions(ctx context.Context, dev disk.Device, readOnly bool) (string, error) {
	head := make([]byte, min(dev.Size(), 128<<10))
	if err := dev.ReadAt(ctx, head, 0); err != nil {
		return "", err
	}
	mode := "rw,noatime"
	if readOnly {
		mode = "ro"
	}
	has := func(off int, magic string) bool {
		return len(head) >= off+len(magic) && string(head[off:off+len(magic)]) == magic
	}
	switch {
	case has(0x438, "\x53\xef") && readOnly:
		return mode + ",noload", nil // a journal can't be replayed into what is read-only
	case has(0x438, "\x53\xef"):
		return ext4Options, nil
	case has(0, "XFSB") && readOnly:
		return mode + ",norecovery,nouuid", nil
	case has(0, "XFSB"):
		return mode + ",nouuid", nil // a fork has its parent's
	case has(0x10040, "_BHRfS_M"):
		return mode, nil
	case has(510, "\x55\xaa") && binary.LittleEndian.Uint32(head[454:]) != 0, has(512, "EFI PART"):
		return "", errs.New(errs.Unsupported, "the disk is partitioned").
			WithRemedy(
				"serve it, and attach that with: qemu-nbd or nbd-client; or start a machine from it")
	}
	return "", errs.New(errs.Unsupported,
		"there is no file system on the disk that could be mounted").
		WithRemedy(
			"make one where the disk is attached (sluice disk attach); or make a new disk, which gets one when it is mounted")
}
