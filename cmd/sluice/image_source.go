package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// imageSource is a tar archive to be read once. bytes is its length, 0 where that isn't known ahead.
type imageSource struct {
	io.Reader
	bytes int64
	close func() error
}

// Close ends what feeds the archive.
func (s *imageSource) Close() error { return s.close() }

func (d *deps) openImageSource(ctx context.Context, f imageFlags) (*imageSource, error) {
	if f.from != sourceDebian && len(f.include) > 0 {
		return nil, usageError("--include goes with --from debian only")
	}
	if f.from == sourceDebian {
		return d.openDebian(ctx, f.include)
	}
	info, err := os.Stat(f.from)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errs.Wrap(errs.NotFound, err, "there is no directory or archive %q", f.from).
			WithRemedy("give a directory, a tar archive, or the word debian")
	case err != nil:
		return nil, errs.Wrap(errs.Invalid, err, "read %q", f.from)
	case info.IsDir():
		return openDirectory(ctx, f.from)
	default:
		return openArchive(f.from, info.Size())
	}
}

// openDirectory archives a tree with the system's tar, which knows about hard links, devices, sparse files
// and extended attributes.
func openDirectory(ctx context.Context, dir string) (*imageSource, error) {
	ctx, cancel := context.WithCancel(ctx)
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "tar", "--create", "--numeric-owner", "--xattrs", "--one-file-system",
		"--directory", dir, "--file", "-", ".")
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, errs.Wrap(errs.Unsupported, err, "archive directory %q", dir).WithRemedy("install tar")
	}
	ended := &endingReader{Reader: out, end: func() error {
		if err := cmd.Wait(); err != nil {
			return errs.Wrap(errs.Invalid, err, "archive directory %q: %s", dir, strings.TrimSpace(stderr.String()))
		}
		return nil
	}}
	return &imageSource{Reader: ended, close: func() error {
		cancel()
		return ended.finish()
	}}, nil
}

// endingReader gives the error of what fed it in place of an early end of file.
type endingReader struct {
	io.Reader
	end  func() error
	done bool
	err  error
}

func (r *endingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		if failed := r.finish(); failed != nil {
			return n, failed
		}
	}
	return n, err
}

func (r *endingReader) finish() error {
	if !r.done {
		r.done, r.err = true, r.end()
	}
	return r.err
}

// openArchive opens a tar archive, and unpacks gzip and zstd, which it knows by their first bytes.
func openArchive(path string, size int64) (*imageSource, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "open archive %q", path)
	}
	buffered := bufio.NewReaderSize(f, 1<<20)
	magic, err := buffered.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		f.Close()
		return nil, errs.Wrap(errs.Invalid, err, "read archive %q", path)
	}
	source := &imageSource{Reader: buffered, bytes: size, close: f.Close}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		source.bytes = 0
		source.Reader, err = gzip.NewReader(buffered)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		source.bytes = 0
		var z *zstd.Decoder
		if z, err = zstd.NewReader(buffered); err == nil {
			source.Reader = z
			source.close = func() error { z.Close(); return f.Close() }
		}
	}
	if err != nil {
		f.Close()
		return nil, errs.Wrap(errs.Invalid, err, "unpack archive %q", path)
	}
	return source, nil
}
