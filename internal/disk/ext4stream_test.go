package disk_test

import (
	"context"
	"fmt"
	"hash/maphash"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/frontend"
)

const streamSize = 24 << 20

var streamSeed = maphash.MakeSeed()

// deviceOp is one request of a kernel to a block device: a write, a range to zero, or a flush.
type deviceOp struct {
	off, n int64
	data   []byte // nil: zeros
	flush  bool
}

// recorder is a device in memory that remembers, in order, what was asked of it.
type recorder struct {
	mu    sync.Mutex
	bytes []byte
	ops   []deviceOp
}

var _ disk.Device = (*recorder)(nil)

func (r *recorder) Size() int64 { return int64(len(r.bytes)) }

func (r *recorder) ReadAt(_ context.Context, p []byte, off int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	copy(p, r.bytes[off:])
	return nil
}

func (r *recorder) WriteAt(_ context.Context, p []byte, off int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	copy(r.bytes[off:], p)
	r.ops = append(r.ops, deviceOp{off: off, n: int64(len(p)), data: append([]byte(nil), p...)})
	return nil
}

func (r *recorder) Flush(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, deviceOp{flush: true})
	return nil
}

func (r *recorder) Trim(ctx context.Context, off, n int64) error { return r.Zero(ctx, off, n) }

func (r *recorder) Zero(_ context.Context, off, n int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.bytes[off : off+n])
	r.ops = append(r.ops, deviceOp{off: off, n: n})
	return nil
}

// apply does the op on a device.
func (op *deviceOp) apply(ctx context.Context, d disk.Device) error {
	switch {
	case op.flush:
		return d.Flush(ctx)
	case op.data == nil:
		return d.Zero(ctx, op.off, op.n)
	}
	return d.WriteAt(ctx, op.data, op.off)
}

// sums are checksums of a device's blocks.
type sums []uint64

func sumsOf(b []byte) sums {
	s := make(sums, len(b)/4096)
	for i := range s {
		s[i] = maphash.Bytes(streamSeed, b[i*4096:][:4096])
	}
	return s
}

// recordExt4 makes an ext4 file system through the kernel and works on it, and returns what its
// device was asked, and how many of the requests made the file system.
func recordExt4(t *testing.T) (ops []deviceOp, made int) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	r := &recorder{bytes: make([]byte, streamSize)}
	f, err := frontend.Attach(t.Context(), r, frontend.Config{Name: "record"})
	if err != nil {
		t.Fatal(err)
	}
	closeIt := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		return f.Close(ctx)
	}
	t.Cleanup(func() { _ = closeIt() })
	if err := frontend.Mkfs(t.Context(), f.BlockDevice(), frontend.MkfsOptions{}); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	made = len(r.ops)
	r.mu.Unlock()
	dir := t.TempDir()
	if err := frontend.MountExt4(t.Context(), f.BlockDevice(), dir, unix.MS_NOATIME); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	for i := range 60 {
		workOnFiles(t, dir, i)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := frontend.Unmount(ctx, dir); err != nil {
		t.Fatal(err)
	}
	if err := closeIt(); err != nil {
		t.Fatal(err)
	}
	return r.ops, made
}

// workOnFiles makes directories and files, replaces, renames and deletes, with a sync of each file.
func workOnFiles(t *testing.T, dir string, i int) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	sub := filepath.Join(dir, fmt.Sprint("d", i%7))
	must(os.MkdirAll(sub, 0o755))
	name := filepath.Join(sub, fmt.Sprint("f", i))
	f, err := os.OpenFile(name+".new", os.O_CREATE|os.O_WRONLY, 0o644)
	must(err)
	body := make([]byte, 700*(i%40+1))
	for j := range body {
		body[j] = byte(i*j>>3 + j)
	}
	_, err = f.Write(body)
	must(err)
	must(f.Sync())
	must(f.Close())
	must(os.Rename(name+".new", name))
	if i%3 == 0 && i > 8 {
		must(os.Remove(filepath.Join(dir, fmt.Sprint("d", (i-7)%7), fmt.Sprint("f", i-7))))
	}
	if i%5 == 0 {
		must(os.Symlink(name, name+".link"))
	}
}
