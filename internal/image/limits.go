package image

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// An archive of a few hundred kilobytes can stand for millions of files, or for terabytes. So what
// is unpacked is bounded by what the image has room for, and by what the host gives to a build.

const (
	// entryBytes is what an image must have for each entry of its archive. The file system gets
	// more inodes than that where a tree needs them (see inodes).
	entryBytes = 1024
	// maxAttributes bounds the extended attributes of one file; Linux gives one 64 KiB.
	maxAttributes = 64 << 10
	// maxStored is what a build may take on the host's disk, by default. Holes take nothing.
	maxStored = 64 << 30
	// maxWindow is the most that zstd may look back: that of its option --long.
	maxWindow = 128 << 20

	copyChunk = 256 << 10
)

// bounds is what an unpacked archive may still take.
type bounds struct {
	bytes   int64 // of content and of attributes, of which the image has room for so many
	entries int64
	stored  int64 // of bytes, those that take room on the host
}

// boundsOf returns those of an image of size bytes. stored is of the host; 0: 64 GiB.
func boundsOf(size, stored int64) bounds {
	if stored <= 0 {
		stored = maxStored
	}
	return bounds{bytes: size, entries: size / entryBytes, stored: stored}
}

// entry takes n entries, or says that there is no room for them.
func (b *bounds) entry(n int) error {
	if b.entries -= int64(n); b.entries < 0 {
		return errs.New(errs.Exhausted, "the archive has more entries than the disk has room for").
			WithRemedy("make the disk larger: it needs %d bytes for each entry", entryBytes)
	}
	return nil
}

// content takes n bytes.
func (b *bounds) content(n int64) error {
	if n > b.bytes {
		return errs.New(errs.Exhausted, "archive holds more than the disk can").
			WithRemedy("make the disk larger")
	}
	b.bytes -= n
	return nil
}

// attributes takes what the extended attributes of one file have.
func (b *bounds) attributes(n int) error {
	if n > maxAttributes {
		return errs.New(errs.Invalid, "extended attributes of %d bytes, more than %d", n,
			maxAttributes).WithRemedy("remove them from the file")
	}
	return b.content(int64(n))
}

// store takes n bytes of the host's disk.
func (b *bounds) store(n int) error {
	if b.stored -= int64(n); b.stored < 0 {
		return errs.New(errs.Exhausted, "the archive's content is more than a build may take on "+
			"the server's disk").WithRemedy("put less into the image, and the rest onto a machine")
	}
	return nil
}

// copyTo copies content into a new file, in which blocks of zeros become holes.
func (b *bounds) copyTo(f *os.File, content io.Reader) error {
	buf := make([]byte, copyChunk)
	size := int64(0)
	for {
		n, err := io.ReadFull(content, buf)
		if n > 0 && !zeros(buf[:n]) {
			if err := b.store(n); err != nil {
				return err
			}
			if _, err := f.WriteAt(buf[:n], size); err != nil {
				return err
			}
		}
		size += int64(n)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF) && n > 0:
			return f.Truncate(size)
		case err != nil:
			return err
		}
	}
}

func zeros(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// untilDone reads until ctx ends.
type untilDone struct {
	ctx context.Context //nolint:containedctx // of one entry that is unpacked
	r   io.Reader
}

func (u *untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, errs.Wrap(errs.Unavailable, err, "unpack")
	}
	return u.r.Read(p)
}

// openPlain opens a file of a packaged image for reading. Invalid: it is none, but a link, a device
// or a pipe, of which reading might never end; or it has more than limit bytes, if that isn't 0.
func openPlain(root *os.Root, name string, limit int64) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, notPlain(name, fs.ModeSymlink)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = notPlain(name, info.Mode())
	case limit > 0 && info.Size() > limit:
		err = errs.New(errs.Invalid, "%s has %d bytes, more than %d", name, info.Size(), limit)
	default:
		return f, nil
	}
	return nil, errors.Join(err, f.Close())
}

func notPlain(name string, mode fs.FileMode) error {
	return errs.New(errs.Invalid, "%s is no plain file, but %v", name, mode.Type()).
		WithRemedy("package the image again, with plain files only")
}
