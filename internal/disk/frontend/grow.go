package frontend

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	ext4ResizeFS = 0x40086610 // _IOW('f', 16, __u64): the new number of blocks

	ext4Super      = 1024 // where the superblock is
	ext4SuperBytes = 1024
	ext4Magic      = 0xef53

	// leastGroup is the fewest blocks that are worth a block group of their own: fewer may not even
	// hold its tables.
	leastGroup = 4096
)

// GrowExt4 makes the ext4 file system that is mounted at dir as large as its block device, and
// reports whether it had to. It stays mounted and in use. What the device has beyond a whole number
// of block groups may be left unused, if it is less than 16 MiB. Call it in another process than
// the one that serves the device (see the package comment). Needs CAP_SYS_RESOURCE. Doing it again
// is safe, also after it was interrupted.
func GrowExt4(blockdev, dir string) (bool, error) {
	blocks, want, _, err := ext4Blocks(blockdev)
	if err != nil || want <= blocks {
		return false, err
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, errs.Wrap(errs.Unavailable, err, "grow the file system on %s", dir)
	}
	defer release(fd)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ext4ResizeFS,
		uintptr(unsafe.Pointer(&want))); errno != 0 {
		kind, remedy := errs.Unavailable, "look in the kernel's log, and run it again"
		if errors.Is(errno, unix.EPERM) {
			kind, remedy = errs.Denied,
				"run as root with CAP_SYS_RESOURCE; a file system that has seen errors must be unmounted and checked by e2fsck first"
		}
		return false, errs.Wrap(kind, errno, "grow the file system on %s from %d to %d blocks", dir,
			blocks, want).WithRemedy("%s", remedy)
	}
	return true, nil
}

// Ext4Bytes returns how large an ext4 file system is, and how large GrowExt4 would make it, in
// bytes.
func Ext4Bytes(blockdev string) (has, could int64, err error) {
	h, c, log, err := ext4Blocks(blockdev)
	return int64(h << log), int64(c << log), err //nolint:gosec // sizes
}

// ext4Blocks returns how many blocks an ext4 file system has, how many it could have on its device,
// and how large they are, as the power of 2.
func ext4Blocks(blockdev string) (have, could uint64, log uint32, err error) {
	f, err := os.Open(blockdev)
	if err != nil {
		return 0, 0, 0, errs.Wrap(errs.Unavailable, err, "look at the file system on %s", blockdev)
	}
	defer f.Close()
	sb := make([]byte, ext4SuperBytes)
	if _, err := f.ReadAt(sb, ext4Super); err != nil {
		return 0, 0, 0, errs.Wrap(errs.Unavailable, err, "read the superblock of %s", blockdev)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, 0, 0, errs.Wrap(errs.Unavailable, err, "look at the size of %s", blockdev)
	}
	le := binary.LittleEndian
	have = uint64(le.Uint32(sb[0x04:])) | uint64(le.Uint32(sb[0x150:]))<<32
	logBlock, perGroup := le.Uint32(sb[0x18:]), uint64(le.Uint32(sb[0x20:]))
	if le.Uint16(sb[0x38:]) != ext4Magic || logBlock > 6 || perGroup == 0 {
		return 0, 0, 0, errs.New(errs.Invalid, "there is no ext4 file system on %s", blockdev)
	}
	log = 10 + logBlock
	could = uint64(size) >> log //nolint:gosec // a size
	if rest := could % perGroup; rest < leastGroup {
		could -= rest
	}
	return have, could, log, nil
}
