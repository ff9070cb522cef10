package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// unpack applies a tar stream, plain or compressed with gzip or zstd, to a tree. As a layer, its
// whiteouts remove what earlier layers have put there.
func unpack(ctx context.Context, t *tree, r io.Reader, asLayer bool) error {
	plain, err := decompress(r)
	if err != nil {
		return err
	}
	defer plain.Close()
	layer := layerState{tree: t, made: map[string]struct{}{}}
	end := &trailer{r: plain}
	for archive := tar.NewReader(end); ; {
		if err := ctx.Err(); err != nil {
			return errs.Wrap(errs.Unavailable, err, "unpack")
		}
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			if asLayer {
				return nil // its digest tells
			}
			return end.check()
		}
		if err != nil {
			return readError(err)
		}
		if err := t.entry(1); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		name, err := clean(h.Name)
		if err != nil {
			return err
		}
		if asLayer {
			done, err := layer.hide(name)
			if err != nil {
				return classify(fmt.Errorf("apply %s: %w", name, err))
			}
			if done {
				continue
			}
			layer.note(name)
		}
		if err := t.put(h, name, &untilDone{ctx, archive}); err != nil {
			return classify(err)
		}
	}
}

// trailer checks that an archive ends with two blocks of zeros. Package tar accepts one that was
// cut off between two entries.
type trailer struct {
	r     io.Reader
	zeros int // at the end of what was read so far
}

func (t *trailer) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	rest := bytes.TrimRight(p[:n], "\x00")
	if len(rest) > 0 {
		t.zeros = 0
	}
	t.zeros += n - len(rest)
	return n, err
}

func (t *trailer) check() error {
	if t.zeros < 1024 {
		return readError(io.ErrUnexpectedEOF)
	}
	return nil
}

// readError says what is wrong with an archive that can't be read to its end.
func readError(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errs.New(errs.Invalid, "the archive is cut short").
			WithRemedy("make or copy the archive again, and compare its size with the original's")
	}
	return errs.Wrap(errs.Invalid, err, "read the archive")
}

// classify returns an unpacking error with a kind: its own if it has one.
func classify(err error) error {
	var known *errs.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return readError(err)
	case errors.Is(err, unix.ENOSPC):
		return errs.Wrap(errs.Exhausted, err, "unpack").WithRemedy("free space for temporary files")
	case errors.Is(err, unix.EPERM):
		return errs.Wrap(errs.Denied, err, "unpack").WithRemedy("run as root")
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP),
		errors.Is(err, unix.EEXIST), errors.Is(err, unix.ENAMETOOLONG):
		return errs.Wrap(errs.Invalid, err, "archive contradicts itself")
	default:
		return errs.Wrap(errs.Unavailable, err, "unpack")
	}
}

// layerState records what the present layer has made itself, which its whiteouts don't remove.
type layerState struct {
	tree *tree
	made map[string]struct{}
}

func (l *layerState) note(name string) {
	for ; name != "." && name != ""; name = path.Dir(name) {
		l.made[name] = struct{}{}
	}
}

func (l *layerState) has(name string) bool {
	_, ok := l.made[name]
	return ok
}

// hide applies a whiteout, and reports whether name was one.
func (l *layerState) hide(name string) (bool, error) {
	base := path.Base(name)
	dirName := path.Dir(name)
	if dirName == "." {
		dirName = ""
	}
	if !strings.HasPrefix(base, whiteout) {
		return false, nil
	}
	if base == opaque {
		// what is noted here needs no directory that was made
		if err := l.tree.entry(strings.Count(dirName, "/")); err != nil {
			return true, err
		}
		l.note(dirName)
		return true, l.empty(dirName)
	}
	target := path.Join(dirName, strings.TrimPrefix(base, whiteout))
	if targetBase := path.Base(target); targetBase == "." || targetBase == ".." ||
		target == dirName {
		return true, errs.New(errs.Invalid, "bad whiteout %q", name)
	}
	if l.has(target) {
		return true, nil
	}
	dir, err := l.tree.open(dirName, unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) {
		return true, nil
	}
	if err != nil {
		return true, err
	}
	defer release(dir)
	return true, remove(dir, path.Base(target))
}

// empty removes from a directory what earlier layers have put there.
func (l *layerState) empty(dirName string) error {
	dir, err := l.tree.open(dirName, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer release(dir)
	entries, err := os.ReadDir(procPath(dir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(dirName, e.Name())
		switch {
		case !l.has(name):
			err = remove(dir, e.Name())
		case e.IsDir():
			err = l.empty(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// decompress returns a stream decompressed, by the method that its first bytes show.
func decompress(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 1<<20)
	magic, err := b.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, errs.Wrap(errs.Unavailable, err, "read the archive")
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, readError(err)
		}
		return z, nil
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, readError(err)
		}
		return z.IOReadCloser(), nil
	default:
		return io.NopCloser(b), nil
	}
}
