package fileblob

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// failure gives an error of the operating system its kind. One that has a kind keeps it.
func failure(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	var known *errs.Error
	if errors.As(err, &known) {
		return err
	}
	kind := errs.Unavailable
	switch {
	case errors.Is(err, fs.ErrNotExist):
		kind = errs.NotFound
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EISDIR),
		errors.Is(err, unix.ENAMETOOLONG):
		// A key that lies under another object, or is a directory of others.
		kind = errs.Invalid
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EMFILE),
		errors.Is(err, unix.ENFILE):
		kind = errs.Exhausted
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		kind = errs.Denied
	}
	e := errs.Wrap(kind, err, format, args...)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		e = e.WithRemedy(
			"make room on the file system that the store's directory is on, or raise its quota")
	}
	return e
}

// find opens an object and returns its size and ETag with the descriptor.
func find(path string) (fd int, size int64, etag blob.ETag, err error) {
	fd, err = open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) {
		err = fs.ErrNotExist // it would lie under another object
	}
	if err != nil {
		return -1, 0, "", err
	}
	if size, etag, err = identify(fd); err != nil {
		release(fd)
		return -1, 0, "", err
	}
	return fd, size, etag, nil
}

// identify returns the size and the ETag of an open object.
func identify(fd int) (int64, blob.ETag, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0, "", fs.ErrNotExist
	}
	var tag [64]byte
	n, err := unix.Fgetxattr(fd, etagAttr, tag[:])
	if errors.Is(err, unix.ENODATA) {
		// Brought here by a copy without attributes, such as a restored backup. What this store
		// writes later has an attribute, so the two never look alike.
		return st.Size, blob.ETag(fmt.Sprintf("plain-%x-%x-%x", st.Ino, st.Mtim.Nano(), st.Size)),
			nil
	}
	if err != nil {
		return 0, "", err
	}
	return st.Size, blob.ETag(tag[:n]), nil
}

// rename moves a temporary file to its final name. With RENAME_NOREPLACE it fails with EEXIST where
// there is a file of that name.
func rename(from, to string, flags uint) error {
	err := retry(func() error {
		return unix.Renameat2(unix.AT_FDCWD, from,
			unix.AT_FDCWD, to, flags)
	})
	if errors.Is(err, unix.EINVAL) && flags == unix.RENAME_NOREPLACE {
		// The file system lacks the flag; link is as atomic, in two steps. If we die between them,
		// a temporary name is left, for Sweep.
		if err = retry(func() error { return unix.Link(from, to) }); err == nil {
			_ = unix.Unlink(from) // the object is there; a name that stays is Sweep's
		}
	}
	if errors.Is(err, unix.ENOENT) {
		// Either the directory has vanished, or this process slept for so long that its file was
		// swept.
		return errs.Wrap(errs.Unavailable, err, "publish %s", to)
	}
	return err
}

func removeIfThere(name string) error {
	if err := unix.Unlink(name); err != nil && !errors.Is(err, unix.ENOENT) {
		return failure(err, "remove temporary file")
	}
	return nil
}

func open(path string, flags int, mode uint32) (fd int, err error) {
	err = retry(func() error { fd, err = unix.Open(path, flags, mode); return err })
	return fd, err
}

func fsync(fd int) error { return retry(func() error { return unix.Fsync(fd) }) }

func writeFull(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		p = p[max(n, 0):]
	}
	return nil
}

func readFull(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pread(fd, p, off)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF // somebody else has cut the file
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// release closes a descriptor that nothing was written through, or whose content is durable
// already.
func release(fd int) { _ = unix.Close(fd) }
