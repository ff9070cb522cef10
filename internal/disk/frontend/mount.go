package frontend

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	fsType     = "sluice"
	maxRequest = 1 << 20 // bytes in one READ or WRITE; also the kernel's limit (256 pages)
)

// mountDetached makes a FUSE mount that is part of no namespace. The caller owns both descriptors:
// conn is the connection that a server reads requests from, mnt the mount. The mount ends when mnt
// is closed and no file in it is open any more.
func mountDetached(device, source string) (conn, mnt int, err error) {
	conn, err = unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, -1, errs.Wrap(errs.Unsupported, err, "open %s", device).
			WithRemedy("load the kernel's fuse module")
	}
	mnt, err = fsmount(conn, source)
	if err != nil {
		release(conn)
		return -1, -1, errs.Wrap(errs.Unsupported, err, "mount a fuse file system").
			WithRemedy("run as root on Linux 5.2 or newer")
	}
	return conn, mnt, nil
}

func fsmount(conn int, source string) (mnt int, err error) {
	fs, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen: %w", err)
	}
	defer release(fs)
	for _, o := range [][2]string{
		{"source", source},
		{"subtype", fsType},
		{"fd", strconv.Itoa(conn)},
		{"rootmode", "40000"},
		{"user_id", "0"},
		{"group_id", "0"},
		{"max_read", strconv.Itoa(maxRequest)},
	} {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return -1, fmt.Errorf("fsconfig %s: %w", o[0], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("fsconfig create: %w", err)
	}
	mnt, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC,
		unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsmount: %w", err)
	}
	return mnt, nil
}

// release closes a descriptor whose close can't lose anything.
func release(fd int) { _ = unix.Close(fd) }
