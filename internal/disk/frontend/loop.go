package frontend

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	loopMajor    = 7
	loopAttempts = 100
	miscMajor    = 10
	fuseMinor    = 229
	controlMinor = 237
)

// loopDevice is a configured loop device, held open.
type loopDevice struct {
	fd      int
	path    string
	created bool // we made the node, and remove it
}

// attachLoop puts a free loop device over the open file backing. Other processes look for free ones
// at the same time, and all find the same; so the loser of a race tries again.
func attachLoop(ctx context.Context, devDir string, backing int,
	label string) (*loopDevice, error) {
	controlPath := filepath.Join(devDir, "loop-control")
	if _, err := ensureNode(controlPath, unix.S_IFCHR, miscMajor, controlMinor); err != nil {
		return nil, err
	}
	control, err := unix.Open(controlPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errs.Wrap(errs.Unsupported, err, "open %s", controlPath).
			WithRemedy("load the kernel's loop module")
	}
	defer release(control)
	for range loopAttempts {
		l, err := tryLoop(control, devDir, backing, label)
		if err == nil {
			return l, nil
		}
		if !isTaken(err) {
			return nil, errs.Wrap(errs.Unavailable, err, "attach a loop device")
		}
		if backoff.Sleep(ctx, time.Duration(rand.Int64N(int64(10*time.Millisecond)))) != nil {
			return nil, errs.Wrap(errs.Unavailable, ctx.Err(), "attach a loop device")
		}
	}
	return nil, errs.New(errs.Exhausted, "no loop device was free for long enough in %d attempts",
		loopAttempts).
		WithRemedy("look with losetup -l at what uses them")
}

// isTaken reports whether an error says that somebody else was faster.
func isTaken(err error) bool {
	return errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENXIO) ||
		errors.Is(err, unix.ENODEV) ||
		errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)
}

func tryLoop(control int, devDir string, backing int, label string) (*loopDevice, error) {
	n, err := unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, fmt.Errorf("find a free one: %w", err)
	}
	l := &loopDevice{fd: -1, path: filepath.Join(devDir, fmt.Sprintf("loop%d", n))}
	if l.created, err = ensureNode(l.path, unix.S_IFBLK, loopMajor, loopMinor(n)); err != nil {
		return nil, err
	}
	l.fd, err = unix.Open(l.path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", l.path, err), l.removeNode())
	}
	config := unix.LoopConfig{
		Fd:   uint32(backing),
		Size: disk.BlockSize,
		Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO},
	}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], label)
	if err := unix.IoctlLoopConfigure(l.fd, &config); err != nil {
		release(l.fd)
		return nil, errors.Join(fmt.Errorf("configure %s: %w", l.path, err), l.removeNode())
	}
	return l, nil
}

// loopMinor returns the minor number of loop device n, which isn't n where the module keeps room
// for partitions.
func loopMinor(n int) uint32 {
	var major, minor uint32
	text, err := os.ReadFile(fmt.Sprintf("/sys/block/loop%d/dev", n))
	if err == nil {
		if _, err := fmt.Sscanf(strings.TrimSpace(string(text)), "%d:%d", &major,
			&minor); err == nil {
			return minor
		}
	}
	return uint32(n)
}

// resize makes the device as large as its backing file is by now.
func (l *loopDevice) resize() error {
	// Older kernels take the size that they know the file to have. Asking for the device's state
	// has them ask the file system first, which nobody else can do: the file has no other user, and
	// its mount is gone.
	_, err := unix.IoctlLoopGetStatus64(l.fd)
	if err == nil {
		err = unix.IoctlSetInt(l.fd, unix.LOOP_SET_CAPACITY, 0)
	}
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "resize %s", l.path)
	}
	return nil
}

// detach writes out what the block device holds and lets go of it. If somebody else has it open or
// mounted, it stays until they are done.
func (l *loopDevice) detach() error {
	syncErr := unix.Fsync(l.fd)
	// Frees it now rather than at the last close; ENXIO says that it was freed already.
	clearErr := unix.IoctlSetInt(l.fd, unix.LOOP_CLR_FD, 0)
	if errors.Is(clearErr, unix.ENXIO) {
		clearErr = nil
	}
	err := errors.Join(syncErr, clearErr, unix.Close(l.fd), l.removeNode())
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "detach %s", l.path)
	}
	return nil
}

func (l *loopDevice) removeNode() error {
	if !l.created {
		return nil
	}
	if err := os.Remove(l.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// ensureNode makes a device node if there's none; in a namespace without udev there often is not.
func ensureNode(path string, mode, major, minor uint32) (created bool, err error) {
	err = unix.Mknod(path, mode|0o600, int(unix.Mkdev(major, minor)))
	if errors.Is(err, unix.EEXIST) {
		return false, nil
	}
	if err != nil {
		// Where the node is missing and can't be made, opening it tells more than this error does.
		if _, statErr := os.Lstat(path); statErr == nil {
			return false, nil
		}
		return false, errs.Wrap(errs.Denied, err, "make device node %s", path)
	}
	return true, nil
}
