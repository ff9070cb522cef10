package frontend

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Barriers are on only while processes of the machine run. With barriers a mount and an unmount
// make several flushes one after the other, each a request to the store. Barriers have two
// purposes. They keep writes in order, which this disk does anyway. And they keep acknowledged
// writes, but nothing is acknowledged to anybody before the first process starts or after the last
// one has ended.

const machineOptions = "errors=remount-ro,barrier="

// MountMachine mounts a machine's disk on a directory, which it makes, without barriers. It does
// nothing if one is mounted there already.
func MountMachine(ctx context.Context, device, dir string) error {
	if err := os.MkdirAll(dir,
		0o755); err != nil { //nolint:gosec // the container's root passes through it
		return fmt.Errorf("make mount point: %w", err)
	}
	mounted, err := IsMountPoint(dir)
	if err != nil || mounted {
		return err
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if err := setReadAhead(device); err != nil {
		return err
	}
	err = unix.Mount(device, dir, "ext4", unix.MS_NOATIME, machineOptions+"0")
	if err != nil {
		return MountError(err)
	}
	return nil
}

// MountError is the error of a machine's disk that the kernel doesn't mount.
func MountError(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EUCLEAN) {
		return errs.Wrap(errs.Corrupt, err, "mount the machine's disk").
			WithRemedy(
				"check the file system on a fork of the disk, or start from an earlier checkpoint")
	}
	return errs.Wrap(errs.Unavailable, err, "mount the machine's disk")
}

// readAhead is how far the kernel reads ahead of a reader, and around the first touched page of a
// program. The kernel's default, 128 KiB, suits local disks. Here a request takes milliseconds,
// whatever its size up to this.
const readAhead = 1 << 20

// setReadAhead sets readAhead on a device. Call it before the mount.
func setReadAhead(device string) error {
	fd, err := unix.Open(device, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "open %s", device)
	}
	defer unix.Close(fd)
	const sector = 512
	if err := unix.IoctlSetInt(fd, unix.BLKRASET, readAhead/sector); err != nil {
		return errs.Wrap(errs.Unavailable, err, "set read-ahead of %s", device)
	}
	return nil
}

// SetBarriers switches barriers of a mounted file system; nothing is done if none is mounted.
func SetBarriers(dir string, on bool) error {
	mounted, err := IsMountPoint(dir)
	if err != nil || !mounted {
		return err
	}
	option := machineOptions + "0"
	if on {
		option = machineOptions + "1"
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_NOATIME, option); err != nil {
		return errs.Wrap(errs.Unavailable, err, "remount %s with %s", dir, option)
	}
	return nil
}

// UnmountMachine unmounts the file system and returns once no mount of it is left anywhere.
// umount(2) alone doesn't guarantee that: until the kernel has dropped a dead container's mount,
// the file system isn't written out. Afterwards the device's server has its last blocks, and makes
// them durable when it closes the disk. What fails because it is busy is tried again until ctx
// ends.
func UnmountMachine(ctx context.Context, dir, device string) error {
	// A file system that has turned read-only after an error can't be remounted, and need not be.
	if err := SetBarriers(dir, false); err != nil && !errors.Is(err, unix.EROFS) {
		return err
	}
	if err := UnmountBusy(ctx, dir); err != nil {
		return err
	}
	if device == "" {
		return nil
	}
	err := retryBusy(ctx, func() error {
		// Opening a block device exclusively fails while a file system uses it.
		fd, err := unix.Open(device, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	})
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "file system on %s is still in use", device)
	}
	return nil
}

// UnmountBusy unmounts what is on dir. It tries again while it is busy, until ctx ends.
func UnmountBusy(ctx context.Context, dir string) error {
	err := retryBusy(ctx, func() error {
		err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // not a mount point
			return nil
		}
		return err
	})
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "unmount the machine's disk")
	}
	return nil
}

// retryBusy repeats do until it doesn't return EBUSY any more, or ctx ends.
func retryBusy(ctx context.Context, do func() error) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := do()
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		if backoff.Sleep(ctx, wait) != nil {
			return err
		}
	}
}

// MappedTree returns a detached mount of what is mounted on dir, mapped to a user namespace, with
// more mount attributes.
func MappedTree(dir string, users int, attributes uint64) (int, error) {
	tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, errs.Wrap(errs.Unavailable, err, "clone the mount of %s", dir)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP | attributes,
		Userns_fd: uint64(users)} //nolint:gosec // a descriptor
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(tree)
		return -1, errs.Wrap(errs.Unsupported, err, "map the ids of %s", dir).
			WithRemedy("use a kernel and a file system with idmapped mounts (ext4 from Linux 5.12)")
	}
	return tree, nil
}

// IsMountPoint reports whether another file system is mounted on dir; false where there is no dir.
func IsMountPoint(dir string) (bool, error) {
	var here, up unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS,
		&here); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return false, nil
		}
		return false, fmt.Errorf("look at %s: %w", dir, err)
	}
	if err := unix.Statx(unix.AT_FDCWD, dir+"/..", unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS,
		&up); err != nil {
		return false, fmt.Errorf("look at %s/..: %w", dir, err)
	}
	return here.Dev_major != up.Dev_major || here.Dev_minor != up.Dev_minor, nil
}
