package frontend

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	unmountPause = 20 * time.Millisecond
	fitrim       = 0xc0185879 // _IOWR('X', 121, struct fstrim_range)
)

// MkfsOptions are what a new ext4 file system may be given. Zero values let mkfs choose.
type MkfsOptions struct {
	Label     string // at most 16 bytes
	UUID      string // also seeds directory hashes
	Tree      string // a directory whose content the file system starts with
	JournalMB int    // size of the journal
	// files that there is room for at least; mkfs chooses by the size, which may be fewer
	Inodes int64
	Env    []string // added to the environment, such as SOURCE_DATE_EPOCH=…
}

// Mkfs makes an ext4 file system on a block device or in a file, with 4 KiB blocks. Everything is
// initialized at once, so that nothing is written behind the back of who mounts it; blocks of zeros
// are not written, so target must read as zeros.
func Mkfs(ctx context.Context, target string, o MkfsOptions) error {
	extended := "lazy_itable_init=0,lazy_journal_init=0,nodiscard,assume_storage_prezeroed=1"
	args := []string{"-q", "-F", "-b", "4096", "-m", "1"}
	if o.UUID != "" {
		args = append(args, "-U", o.UUID)
		extended += ",hash_seed=" + o.UUID
	}
	if o.Label != "" {
		args = append(args, "-L", o.Label)
	}
	if o.Tree != "" {
		args = append(args, "-d", o.Tree)
	}
	if o.JournalMB > 0 {
		args = append(args, "-J", "size="+strconv.Itoa(o.JournalMB))
	}
	if o.Inodes > 0 {
		args = append(args, "-N", strconv.FormatInt(o.Inodes, 10))
	}
	args = append(args, "-E", extended, target)
	cmd := exec.CommandContext(ctx, "mkfs.ext4", args...)
	cmd.Env = append(os.Environ(), o.Env...)
	return run(cmd, "make a file system on "+target)
}

// Fsck replays the journal of the ext4 file system on a device or in a file that isn't mounted, and
// then checks all of it without changing anything. Whatever is wrong after the replay is a Corrupt
// error.
func Fsck(ctx context.Context, target string) error {
	// e2fsck exits with 1 after a replay, and with more if that did not do.
	replay := run(exec.CommandContext(ctx, "e2fsck", "-p", target), "replay the journal on "+target)
	var exit *exec.ExitError
	if replay != nil && (!errors.As(replay, &exit) || exit.ExitCode() > 1) {
		return asCorrupt(replay)
	}
	return asCorrupt(run(exec.CommandContext(ctx, "e2fsck", "-f", "-n", target),
		"check the file system on "+target))
}

// DiscardFree gives back what the free blocks of an ext4 file system hold, on a device or in a file
// that isn't mounted and is clean. In a file they read as zeros then. env is added to the
// environment.
func DiscardFree(ctx context.Context, target string, env []string) error {
	cmd := exec.CommandContext(ctx, "e2fsck", "-f", "-p", "-E", "discard", target)
	cmd.Env = append(os.Environ(), env...)
	return run(cmd, "discard the free blocks of "+target)
}

// asCorrupt tells what e2fsck has found from what has kept it from looking.
func asCorrupt(err error) error {
	const uncorrected, operational = 4, 8
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode()&uncorrected != 0 && exit.ExitCode() < operational {
		return errs.Wrap(errs.Corrupt, err, "damaged file system")
	}
	return err
}

func run(cmd *exec.Cmd, what string) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrNotFound):
		return errs.Wrap(errs.Unsupported, err, "%s", what).WithRemedy("install e2fsprogs")
	default:
		return errs.Wrap(errs.Unavailable, err, "%s: %s", what, strings.TrimSpace(out.String()))
	}
}

// MountExt4 mounts blockdev on the directory target, with mount(2) flags such as unix.MS_NOATIME.
// The file system turns read-only at the first error that it sees. Call it in another process than
// the one that serves the device (see the package comment).
func MountExt4(ctx context.Context, blockdev, target string, flags uintptr) error {
	if err := ctx.Err(); err != nil {
		return errs.Wrap(errs.Unavailable, err, "mount %s", blockdev)
	}
	if err := unix.Mount(blockdev, target, "ext4", flags, "errors=remount-ro"); err != nil {
		kind := errs.Unavailable
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EUCLEAN) {
			kind = errs.Corrupt
		}
		return errs.Wrap(kind, err, "mount %s on %s", blockdev, target)
	}
	return nil
}

// Unmount writes out the file system at target and unmounts it. While it is busy, Unmount tries
// again until ctx ends, and then returns a Conflict and leaves it mounted. What isn't mounted is
// fine.
func Unmount(ctx context.Context, target string) error {
	if err := syncFileSystem(target); err != nil {
		return err
	}
	for {
		err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
		switch {
		// EINVAL: not a mount point
		case err == nil, errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return nil
		case !errors.Is(err, unix.EBUSY):
			return errs.Wrap(errs.Unavailable, err, "unmount %s", target)
		}
		if backoff.Sleep(ctx, unmountPause) != nil {
			return errs.Wrap(errs.Conflict, err, "unmount %s", target).
				WithRemedy("end the processes that use it (fuser -vm %s)", target)
		}
	}
}

// syncFileSystem writes out everything, so that the unmount has little to do and an error is seen.
func syncFileSystem(target string) error {
	fd, err := unix.Open(target, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "open %s", target)
	}
	if err := errors.Join(unix.Syncfs(fd), unix.Close(fd)); err != nil {
		return errs.Wrap(errs.Unavailable, err, "write out %s", target)
	}
	return nil
}

// fstrimRange is the kernel's struct fstrim_range.
type fstrimRange struct{ start, length, minLength uint64 }

// Trim tells the device of all free space of the file system mounted at target, as fstrim does.
func Trim(target string) error {
	fd, err := unix.Open(target, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "trim %s", target)
	}
	defer release(fd)
	r := fstrimRange{length: math.MaxUint64}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), fitrim,
		uintptr(unsafe.Pointer(&r))); errno != 0 {
		return errs.Wrap(errs.Unavailable, errno, "trim %s", target)
	}
	return nil
}
