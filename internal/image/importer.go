package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const importChunk = 1 << 20 // bytes read at once; a multiple of disk.BlockSize

// Import copies a raw disk image to a device that reads as zeros so far: holes and blocks of zeros are not
// written. It flushes at the end, and returns how many bytes it has written. progress, which may be nil, is
// called with the bytes of data looked at and to look at.
func Import(ctx context.Context, dev disk.Device, raw *os.File, progress func(done, total int64)) (written int64, err error) {
	info, err := raw.Stat()
	if err != nil {
		return 0, errs.Wrap(errs.Unavailable, err, "import")
	}
	if info.Size() > dev.Size() || info.Size()%disk.BlockSize != 0 {
		return 0, errs.New(errs.Invalid, "raw image of %d bytes for a device of %d bytes", info.Size(), dev.Size())
	}
	spans, total, err := dataOf(raw, info.Size())
	if err != nil {
		return 0, err
	}
	if progress == nil {
		progress = func(int64, int64) {}
	}
	im := importer{dev: dev, raw: raw, buf: make([]byte, importChunk)}
	var done int64
	progress(0, total)
	for _, s := range spans {
		for off := s.from; off < s.to; off += importChunk {
			n := min(importChunk, s.to-off)
			if err := im.chunk(ctx, off, n); err != nil {
				return im.written, err
			}
			done += n
			progress(done, total)
		}
	}
	return im.written, dev.Flush(ctx)
}

type span struct{ from, to int64 }

// dataOf returns the parts of a file that aren't holes, aligned to blocks, and how much they are.
func dataOf(raw *os.File, size int64) (spans []span, total int64, err error) {
	for at := int64(0); at < size; {
		from, err := unix.Seek(int(raw.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // no more data
		}
		if err != nil {
			return nil, 0, errs.Wrap(errs.Unavailable, err, "look for data")
		}
		to, err := unix.Seek(int(raw.Fd()), from, unix.SEEK_HOLE)
		if err != nil {
			return nil, 0, errs.Wrap(errs.Unavailable, err, "look for a hole")
		}
		s := span{from: from / disk.BlockSize * disk.BlockSize, to: min((to+disk.BlockSize-1)/disk.BlockSize*disk.BlockSize, size)}
		spans, total, at = append(spans, s), total+s.to-s.from, s.to
	}
	return spans, total, nil
}

type importer struct {
	dev     disk.Device
	raw     *os.File
	buf     []byte
	written int64
}

// chunk copies n bytes at off, but for the blocks of zeros in it.
func (im *importer) chunk(ctx context.Context, off, n int64) error {
	p := im.buf[:n]
	if _, err := im.raw.ReadAt(p, off); err != nil && !errors.Is(err, io.EOF) {
		return errs.Wrap(errs.Unavailable, err, "read the raw image")
	}
	for start := int64(0); start < n; {
		end := start
		for end < n && !isZero(p[end:end+disk.BlockSize]) {
			end += disk.BlockSize
		}
		if end > start {
			if err := im.dev.WriteAt(ctx, p[start:end], off+start); err != nil {
				return err
			}
			im.written += end - start
		}
		start = end + disk.BlockSize
	}
	return nil
}

func isZero(block []byte) bool {
	return block[0] == 0 && bytes.Equal(block[:len(block)-1], block[1:])
}
