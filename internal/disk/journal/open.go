package journal

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/filelock"
)

// Open uses a region of the file or block device at path, creating a file where there is nothing,
// and reserves its space. Conflict if another process has a journal on it.
func Open(path string, o Options) (*Journal, error) {
	flags := os.O_RDWR | os.O_CREATE
	if st, err := os.Stat(path); err == nil && st.Mode()&os.ModeDevice != 0 {
		flags = os.O_RDWR | os.O_EXCL // of a block device: nobody else may have it so
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if errors.Is(err, unix.EBUSY) {
		return nil, errs.Wrap(errs.Conflict, err, "the device %s is in use", path).
			WithRemedy("choose another one for the journal")
	}
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err,
			"open journal").WithRemedy("give a file or block device that can be written")
	}
	j, err := open(f, o)
	if err != nil {
		return nil, errors.Join(errs.Wrap(errs.KindOf(err), err, "open journal %s",
			path), f.Close())
	}
	return j, nil
}

func open(f *os.File, o Options) (*Journal, error) {
	if err := filelock.Take(f); err != nil {
		if errs.Is(err, errs.Conflict) {
			return nil, errs.Wrap(errs.Conflict, err,
				"another process uses it").WithRemedy("choose another file, or end that process")
		}
		return nil, err
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "seek")
	}
	if need := o.Offset + o.Size; end < need {
		if err := extend(f, end, need); err != nil {
			return nil, err
		}
	}
	return New(&syncFile{f}, o)
}

// extend fills the file with zeros, so that a later sync has no block to allocate and nothing of it
// to write.
func extend(f *os.File, from, to int64) error {
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return errs.New(errs.Invalid, "the device has %d bytes, and the journal ends at %d", from,
			to).WithRemedy("use less")
	}
	zeros := make([]byte, 1<<20)
	for from < to {
		n, err := f.WriteAt(zeros[:min(int64(len(zeros)), to-from)], from)
		if err != nil {
			return errs.Wrap(errs.Exhausted, err, "reserve space for the journal")
		}
		from += int64(n)
	}
	if err := f.Sync(); err != nil {
		return errs.Wrap(errs.Unavailable, err, "reserve space for the journal")
	}
	return nil
}

// syncFile syncs content and not times.
type syncFile struct{ *os.File }

func (f *syncFile) Close() error { return filelock.Close(f.File) }

func (f *syncFile) Sync() error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
