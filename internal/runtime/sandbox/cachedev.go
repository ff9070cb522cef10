package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// noCache is the loop number of a VM without a cache device.
const noCache = -1

// attachCache makes a sparse file of at least size bytes and a loop device over it, and returns the
// loop device's number. The device is not bound to any process: detachCache finds it by its file.
func attachCache(path string, size int64) (int, error) {
	size = (size + 4095) &^ 4095
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return noCache, errs.Wrap(errs.Internal, err, "create cache file")
	}
	defer func() { _ = f.Close() }()
	if err := f.Truncate(size); err != nil {
		return noCache, errs.Wrap(errs.Exhausted, err, "size cache file to %d bytes", size)
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return noCache, errs.Wrap(errs.Unsupported, err,
			"open loop control").WithRemedy("modprobe loop")
	}
	defer func() { _ = control.Close() }()
	for range 64 { // others take free numbers at the same time
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return noCache, errs.Wrap(errs.Exhausted, err, "find a free loop device")
		}
		err = configureLoop(n, f)
		if errors.Is(err, unix.EBUSY) {
			continue
		}
		if err != nil {
			return noCache, errs.Wrap(errs.Internal, err, "attach loop device %d", n)
		}
		return n, nil
	}
	return noCache, errs.New(errs.Unavailable,
		"every free loop device was taken by somebody else first")
}

// configureLoop attaches f, with direct I/O if f's file system supports it.
func configureLoop(n int, f *os.File) error {
	dev, err := os.OpenFile(loopPath(n), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = dev.Close() }()
	config := unix.LoopConfig{Fd: uint32(f.Fd())}
	config.Info.Flags = unix.LO_FLAGS_DIRECT_IO
	copy(config.Info.File_name[:len(config.Info.File_name)-1], f.Name())
	err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
	if errors.Is(err, unix.EINVAL) {
		config.Info.Flags = 0
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
	}
	return err
}

// loopRule is the rule of the v1 devices controller that lets a VM use one loop device.
func loopRule(n int) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(loopPath(n), &st); err != nil {
		return "", errs.Wrap(errs.Internal, err, "look at loop device %d", n)
	}
	return fmt.Sprintf("b %d:%d rw", unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
}

func loopPath(n int) string { return "/dev/loop" + strconv.Itoa(n) }

// loopsOver returns the numbers of the loop devices over a file of the host.
func loopsOver(path string) ([]int, error) {
	dirs, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		return nil, fmt.Errorf("list loop devices: %w", err)
	}
	var found []int
	for _, dir := range dirs {
		b, err := os.ReadFile(filepath.Join(dir, "backing_file"))
		if err != nil {
			continue // detached meanwhile
		}
		backing := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), " (deleted)")
		n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(filepath.Dir(dir)), "loop"))
		if backing == path && err == nil {
			found = append(found, n)
		}
	}
	return found, nil
}

// detachCache detaches every loop device over path, and returns when they are detached. The kernel
// detaches an open device only once its last user has closed it.
func detachCache(ctx context.Context, path string) error {
	err := onhost.Poll(ctx, func() (bool, error) {
		loops, err := loopsOver(path)
		if err != nil {
			return false, err
		}
		for _, n := range loops {
			if err := clearLoop(n); err != nil {
				return false, err
			}
		}
		return len(loops) == 0, nil
	})
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "detach the cache device over %s", path)
	}
	return nil
}

func clearLoop(n int) error {
	dev, err := os.OpenFile(loopPath(n), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENXIO) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = dev.Close() }()
	err = unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_CLR_FD, 0)
	if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EBUSY) {
		return nil
	}
	return err
}
