package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/image"
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
		return d.openDebian(ctx, f)
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

// openDirectory archives a tree.
func openDirectory(ctx context.Context, dir string) (*imageSource, error) {
	ctx, cancel := context.WithCancel(ctx)
	out, in := io.Pipe()
	var packing errgroup.Group
	packing.Go(func() error {
		in.CloseWithError(image.Pack(ctx, dir, in)) // the reader gets the error, or the end of file
		return nil
	})
	return &imageSource{Reader: out, close: func() error {
		cancel()
		out.Close()
		return packing.Wait()
	}}, nil
}

// openArchive opens a tar archive. Compressed ones go as they are: the server unpacks them.
func openArchive(path string, size int64) (*imageSource, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "open archive %q", path)
	}
	return &imageSource{Reader: f, bytes: size, close: f.Close}, nil
}

const sourceDebian = "debian"

// openDebian archives a minimal Debian, which is made the first time and kept.
func (d *deps) openDebian(ctx context.Context, f imageFlags) (*imageSource, error) {
	if f.cache == "" {
		f.cache = filepath.Join(os.TempDir(), "sluice-images")
	}
	fmt.Fprintln(d.stderr, "making a minimal Debian (half a minute the first time)")
	dir, err := image.Debian(ctx, image.DebianOptions{Suite: f.suite, Include: f.include, CacheDir: f.cache})
	if err != nil {
		return nil, err
	}
	return openDirectory(ctx, string(dir))
}
