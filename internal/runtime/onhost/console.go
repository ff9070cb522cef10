package onhost

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	ConsoleInterval = time.Second // how often a console is to be bounded
	ConsoleMax      = 4 << 20     // bytes at which a console file is cut
	ConsoleKept     = 512 << 10   // newest bytes kept in the file beside it

	// consoleBuffer is what a VM can write, in bytes, between two looks of a worker at it.
	consoleBuffer = 8 << 20
)

// Console bounds what a VM writes to its console.
type Console struct {
	Path string // the file that people read
	// buffer is what the VM writes to: a file in a file system of its own, which is in memory and
	// has little room. So no VM fills the host's disk, also while no worker runs. nil: it writes
	// to Path by itself.
	buffer *os.File
}

// openBuffer makes a console's buffer. Nobody can find it: its file system is mounted nowhere, and
// ends with the last process that has the file open.
func openBuffer() (*os.File, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, errs.Wrap(errs.Unsupported, err, "make a file system for a console").
			WithRemedy("use Linux 5.2 or newer")
	}
	defer unix.Close(fs)
	for _, option := range [][2]string{{"size", fmt.Sprint(consoleBuffer)}, {"nr_inodes", "2"},
		{"mode", "0700"}} {
		if err := unix.FsconfigSetString(fs, option[0], option[1]); err != nil {
			return nil, errs.Wrap(errs.Internal, err, "give a console its %s", option[0])
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, errs.Wrap(errs.Internal, err, "make a file system for a console")
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC,
		unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "make a file system for a console")
	}
	defer unix.Close(root)
	fd, err := unix.Openat(root, "console",
		unix.O_RDWR|unix.O_APPEND|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "make a console")
	}
	return os.NewFile(uintptr(fd), "console"), nil //nolint:gosec // a descriptor
}

// findBuffer returns the buffer that an earlier worker has given to a VM, by its process; nil:
// there is none, or the VM has put something else in its place.
func findBuffer(pid int) *os.File {
	path := fmt.Sprintf("/proc/%d/fd/1", pid)
	var st unix.Stat_t
	var fs unix.Statfs_t
	if unix.Stat(path, &st) != nil || unix.Statfs(path, &fs) != nil ||
		st.Mode&unix.S_IFMT != unix.S_IFREG || fs.Type != unix.TMPFS_MAGIC {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	return f
}

// Bound takes over what the VM has written, and cuts the file if it has grown too long.
func (c Console) Bound() error {
	if c.buffer == nil {
		return c.cut()
	}
	return errors.Join(c.take(), c.cut())
}

// take moves what is in the buffer to the file. What the VM writes between the last look and the
// truncation is lost.
func (c Console) take() (err error) {
	st, err := c.buffer.Stat()
	if err != nil || st.Size() == 0 {
		return err
	}
	f, err := os.OpenFile(c.Path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(f, io.NewSectionReader(c.buffer, 0, consoleBuffer))
	return errors.Join(err, c.buffer.Truncate(0))
}

func (c Console) cut() (err error) {
	f, err := os.OpenFile(c.Path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil || st.Size() <= ConsoleMax {
		return err
	}
	old, err := os.OpenFile(c.Path+".1", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(old, io.NewSectionReader(f, st.Size()-ConsoleKept, ConsoleKept))
	return errors.Join(err, old.Close(), f.Truncate(0))
}

// close ends the use of the buffer, once the VM has ended or nobody watches it any more.
func (c Console) close() error {
	if c.buffer == nil {
		return nil
	}
	return c.buffer.Close()
}
