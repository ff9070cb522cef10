package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/image"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// imageSource is a tar archive to be read once. bytes is its length, 0 where that isn't known
// ahead.
type imageSource struct {
	io.Reader
	bytes int64
	close func() error
}

// Close ends what feeds the archive.
func (s *imageSource) Close() error { return s.close() }

func (d *deps) openImageSource(ctx context.Context, f imageFlags, at *steps) (*imageSource, error) {
	if f.from != sourceDebian && (len(f.include) > 0 || f.mirror != "") {
		return nil, usageError("--include and --mirror go with --from debian only")
	}
	if f.from == sourceDebian {
		return openDebian(ctx, f, at)
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
func openDebian(ctx context.Context, f imageFlags, at *steps) (*imageSource, error) {
	cache, err := f.cache.cache()
	if err != nil {
		return nil, err
	}
	tree, err := image.Debian(ctx, image.DebianOptions{Suite: f.suite, Include: f.include,
		Mirror: f.mirror, Cache: cache, Step: at.step})
	if err != nil {
		return nil, err
	}
	source, err := openDirectory(ctx, tree.Dir())
	if err != nil {
		return nil, errors.Join(err, tree.Close())
	}
	packed := source.close
	source.close = func() error { return errors.Join(packed(), tree.Close()) }
	return source, nil
}
