package frontend_test

import (
	"context"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk"
)

// fileDevice is a sparse file as a device; it counts what it is asked for, and fails when told to.
type fileDevice struct {
	f                            *os.File
	size                         atomic.Int64
	flushes, trimmed, zeroed     atomic.Int64
	unaligned                    atomic.Int64
	failWrites, failFlush, stall atomic.Bool
	unstall                      chan struct{} // never closed: a stall ends with the context
}

var _ disk.Device = (*fileDevice)(nil)

func newFileDevice(t testing.TB, path string, size int64) *fileDevice {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	d := &fileDevice{f: f, unstall: make(chan struct{})}
	d.size.Store(size)
	return d
}

func (d *fileDevice) Size() int64 { return d.size.Load() }

func (d *fileDevice) grow(t *testing.T, size int64) {
	t.Helper()
	if err := d.f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	d.size.Store(size)
}

func (d *fileDevice) ReadAt(_ context.Context, p []byte, off int64) error {
	d.checkAligned(off, len(p))
	_, err := d.f.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (d *fileDevice) WriteAt(ctx context.Context, p []byte, off int64) error {
	d.checkAligned(off, len(p))
	if d.failWrites.Load() {
		return errors.New("refused by the test")
	}
	if d.stall.Load() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.unstall:
		}
	}
	_, err := d.f.WriteAt(p, off)
	return err
}

func (d *fileDevice) Flush(context.Context) error {
	d.flushes.Add(1)
	if d.failFlush.Load() {
		return errors.New("refused by the test")
	}
	return unix.Fdatasync(int(d.f.Fd()))
}

func (d *fileDevice) Trim(_ context.Context, off, length int64) error {
	d.trimmed.Add(length)
	return d.punch(off, length)
}

func (d *fileDevice) Zero(_ context.Context, off, length int64) error {
	d.zeroed.Add(length)
	return d.punch(off, length)
}

func (d *fileDevice) punch(off, length int64) error {
	return unix.Fallocate(int(d.f.Fd()),
		unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length)
}

func (d *fileDevice) checkAligned(off int64, n int) {
	if off%disk.BlockSize != 0 || n%disk.BlockSize != 0 {
		d.unaligned.Add(1)
	}
}
