package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	chunk    = 1 << 20 // bytes copied at once; a multiple of disk.BlockSize
	exporter = 4       // chunks read at a time
)

// Progress is told how many bytes are done, of how many. It may be nil.
type Progress func(done, total int64)

func (p Progress) tell(done, total int64) {
	if p != nil {
		p(done, total)
	}
}

// Import copies a raw image, a file or a block device, to a device that reads as zeros so far and
// is at least as large; the image's size may be any. It returns how many bytes it has written.
func Import(ctx context.Context, dev disk.Device, raw *os.File,
	progress Progress) (written int64, err error) {
	size, err := raw.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, errs.Wrap(errs.Unavailable, err, "import")
	}
	if size > dev.Size() {
		return 0, errs.New(errs.Invalid, "an image of %d bytes for a disk of %d", size, dev.Size())
	}
	spans, total, err := dataOf(raw, size)
	if err != nil {
		return 0, err
	}
	buf := make([]byte, chunk)
	var done int64
	progress.tell(0, total)
	for _, s := range spans {
		for off := s.from; off < s.to; off += chunk {
			p := buf[:min(chunk, s.to-off)]
			n, err := io.ReadFull(io.NewSectionReader(raw, off, int64(len(p))), p)
			if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) { // the last block may be cut
				return written, errs.Wrap(errs.Unavailable, err, "read the image at %d", off)
			}
			clear(p[n:])
			err = eachNonZero(p, func(from, to int) error {
				written += int64(to - from)
				return dev.WriteAt(ctx, p[from:to], off+int64(from))
			})
			if err != nil {
				return written, errs.Wrap(errs.KindOf(err), err, "write the disk at %d", off)
			}
			done += int64(len(p))
			progress.tell(done, total)
		}
	}
	return written, dev.Flush(ctx)
}

// ImportStream copies a raw image that can be read only once, such as from a pipe, to a device that
// reads as zeros so far. It returns how many bytes it has read. One that goes on past the device is
// Invalid.
func ImportStream(ctx context.Context, dev disk.Device, raw io.Reader,
	progress Progress) (read int64, err error) {
	buf := make([]byte, chunk)
	for {
		n, err := io.ReadFull(raw, buf)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return read, errs.Wrap(errs.Unavailable, err, "read the image at %d", read)
		}
		if ctx.Err() != nil {
			return read, ctx.Err()
		}
		if n == 0 {
			return read, dev.Flush(ctx)
		}
		if int64(n) > dev.Size()-read {
			return read, errs.New(errs.Invalid, "the image is larger than the disk of %d bytes",
				dev.Size()).WithRemedy("give it the image's size, by --size")
		}
		whole := (n + disk.BlockSize - 1) / disk.BlockSize * disk.BlockSize
		clear(buf[n:whole])
		werr := eachNonZero(buf[:whole],
			func(from, to int) error { return dev.WriteAt(ctx, buf[from:to], read+int64(from)) })
		if werr != nil {
			return read, errs.Wrap(errs.KindOf(werr), werr, "write the disk at %d", read)
		}
		read += int64(n)
		progress.tell(read, dev.Size())
		if err != nil {
			return read, dev.Flush(ctx)
		}
	}
}

// ExportStream writes all of a device, with its zeros, to a pipe.
func ExportStream(ctx context.Context, dev disk.Device, to io.Writer, progress Progress) error {
	buf := make([]byte, chunk)
	for off := int64(0); off < dev.Size(); {
		p := buf[:min(chunk, dev.Size()-off)]
		if err := dev.ReadAt(ctx, p, off); err != nil {
			return errs.Wrap(errs.KindOf(err), err, "read the disk at %d", off)
		}
		if _, err := to.Write(p); err != nil {
			return errs.Wrap(errs.Unavailable, err, "write the image at %d", off)
		}
		off += int64(len(p))
		progress.tell(off, dev.Size())
	}
	return nil
}

type span struct{ from, to int64 }

// dataOf returns the parts of a file that aren't holes, widened to blocks, and how much they are.
func dataOf(raw *os.File, size int64) (spans []span, total int64, err error) {
	for at := int64(0); at < size; {
		from, err := unix.Seek(int(raw.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // no more data
		}
		if errors.Is(err, unix.EINVAL) && at == 0 { // a block device knows of no holes
			return []span{{0, (size + disk.BlockSize - 1) / disk.BlockSize * disk.BlockSize}}, size,
				nil
		}
		if err != nil {
			return nil, 0, errs.Wrap(errs.Unavailable, err, "look for data in the image")
		}
		to, err := unix.Seek(int(raw.Fd()), from, unix.SEEK_HOLE)
		if err != nil {
			return nil, 0, errs.Wrap(errs.Unavailable, err, "look for a hole in the image")
		}
		s := span{max(at, from/disk.BlockSize*disk.BlockSize),
			(to + disk.BlockSize - 1) / disk.BlockSize * disk.BlockSize}
		spans, total, at = append(spans, s), total+s.to-s.from, s.to
	}
	return spans, total, nil
}

// eachNonZero calls f for each run of blocks of p that aren't zeros.
func eachNonZero(p []byte, f func(from, to int) error) error {
	for start := 0; start < len(p); {
		end := start
		for end < len(p) && !isZero(p[end:end+disk.BlockSize]) {
			end += disk.BlockSize
		}
		if end > start {
			if err := f(start, end); err != nil {
				return err
			}
		}
		start = end + disk.BlockSize
	}
	return nil
}

func isZero(block []byte) bool {
	return block[0] == 0 && bytes.Equal(block[:len(block)-1], block[1:])
}

// Export copies a device to an empty regular file, of which it makes a raw image of the same size.
// It returns how many bytes it has written.
func Export(ctx context.Context, dev disk.Device, to *os.File, progress Progress) (int64, error) {
	if err := to.Truncate(dev.Size()); err != nil {
		return 0, errs.Wrap(errs.Exhausted, err, "make a sparse file of %d bytes", dev.Size())
	}
	spans, total, err := contentOf(ctx, dev)
	if err != nil {
		return 0, err
	}
	x := export{dev: dev, to: to, total: total, progress: progress,
		results: make(chan result, exporter)}
	progress.tell(0, total)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(exporter + 1)
	g.Go(func() error { return x.count(gctx) })
	for _, s := range spans {
		for off := s.from; off < s.to && gctx.Err() == nil; off += chunk {
			g.Go(func() error { return x.chunk(gctx, off, min(chunk, s.to-off)) })
		}
	}
	if err := g.Wait(); err != nil {
		return x.written, err
	}
	if err := to.Sync(); err != nil {
		return x.written, errs.Wrap(errs.Unavailable, err, "write out the image")
	}
	return x.written, nil
}

// contentOf returns the parts of a device that hold content.
func contentOf(ctx context.Context, dev disk.Device) (spans []span, total int64, err error) {
	e, ok := dev.(disk.Extents)
	if !ok {
		return []span{{0, dev.Size()}}, dev.Size(), nil
	}
	for off := int64(0); off < dev.Size(); {
		end, data, err := e.NextExtent(ctx, off, dev.Size())
		if err != nil {
			return nil, 0, err
		}
		if data {
			spans, total = append(spans, span{off, end}), total+end-off
		}
		off = end
	}
	return spans, total, nil
}

type export struct {
	dev      disk.Device
	to       *os.File
	total    int64
	progress Progress
	results  chan result

	done, written int64
}

// result is what became of one chunk, in bytes.
type result struct{ done, written int64 }

func (x *export) chunk(ctx context.Context, off, n int64) error {
	p := make([]byte, n)
	if err := x.dev.ReadAt(ctx, p, off); err != nil {
		return errs.Wrap(errs.KindOf(err), err, "read the disk at %d", off)
	}
	var written int64
	err := eachNonZero(p, func(from, to int) error {
		written += int64(to - from)
		_, err := x.to.WriteAt(p[from:to], off+int64(from))
		return err
	})
	if err != nil {
		return errs.Wrap(errs.Exhausted, err, "write the image at %d", off)
	}
	select {
	case x.results <- result{n, written}:
	case <-ctx.Done():
	}
	return nil
}

// count adds up results until all are there. It is the only one that tells of progress.
func (x *export) count(ctx context.Context) error {
	for x.done < x.total {
		select {
		case r := <-x.results:
			x.done += r.done
			x.written += r.written
			x.progress.tell(x.done, x.total)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
