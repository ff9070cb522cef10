package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/transfer"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const size = 24 << 20

func testCtx(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func newDisk(t *testing.T) *disk.Disk {
	t.Helper()
	store := memblob.New()
	if _, err := disk.Create(testCtx(t), store, "disks/a",
		disk.CreateOptions{Size: size}); err != nil {
		t.Fatal(err)
	}
	d, err := disk.Attach(testCtx(t), store, "disks/a",
		disk.AttachOptions{Generation: 1, Holder: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Abandon)
	return d
}

func newFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestRoundTrips copies random images in and out, of sizes that are whole blocks and that aren't.
func TestRoundTrips(t *testing.T) {
	for _, n := range []int{size, size - 4096, size - 1, 5000, 1, 0} {
		rng := rand.New(rand.NewPCG(uint64(n), 1))
		want, in := make([]byte, size), newFile(t)
		if err := in.Truncate(int64(n)); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if n == 0 {
				break
			}
			off := rng.IntN(n)
			part := want[off:min(n, off+rng.IntN(200_000))]
			for i := range part {
				part[i] = byte(rng.Uint32()) & byte(rng.IntN(2)*255)
			}
			if _, err := in.WriteAt(part, int64(off)); err != nil {
				t.Fatal(err)
			}
		}
		// zeros that are no hole
		if _, err := in.WriteAt(make([]byte, min(n, 1<<20)), 0); err != nil {
			t.Fatal(err)
		}
		clear(want[:min(n, 1<<20)])
		d, out := newDisk(t), newFile(t)
		var seen []int64
		written, err := transfer.Import(testCtx(t), d, in,
			func(done, total int64) { seen = append(seen, done, total) })
		if err != nil {
			t.Fatal(err)
		}
		if n := len(seen); seen[n-2] != seen[n-1] {
			t.Errorf("progress ended at %d of %d", seen[n-2], seen[n-1])
		}
		got := make([]byte, size)
		if err := d.ReadAt(testCtx(t), got, 0); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("size %d: the disk differs (%v)", n, err)
		}
		read, err := transfer.Export(testCtx(t), d, out, nil)
		if err != nil {
			t.Fatal(err)
		}
		if read != written {
			t.Errorf("size %d: %d bytes written to the disk, %d to the file", n, written, read)
		}
		if got, err = os.ReadFile(out.Name()); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("size %d: the file differs (%v)", n, err)
		}
		var st syscall.Stat_t
		if err := syscall.Stat(out.Name(), &st); err != nil || st.Blocks*512 > read+1<<20 {
			t.Errorf("size %d: %d bytes on disk for %d written: %v", n, st.Blocks*512, read, err)
		}
	}
}

// memDevice counts what Import writes.
type memDevice struct {
	disk.Device
	data    []byte
	written int64
	flushed bool
}

func (d *memDevice) Size() int64 { return int64(len(d.data)) }

func (d *memDevice) WriteAt(_ context.Context, p []byte, off int64) error {
	d.written += int64(len(p))
	copy(d.data[off:], p)
	return nil
}

func (d *memDevice) Flush(context.Context) error { d.flushed = true; return nil }

func TestImportSkipsHolesAndZeros(t *testing.T) {
	raw, err := os.Create(filepath.Join(t.TempDir(), "raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	const size = 32 << 20
	if err := raw.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for off, body := range map[int64][]byte{
		0: bytes.Repeat([]byte{1}, 4096), 8192 + 5: {7}, 5 << 20: make([]byte, 1<<20),
		10<<20 - 4096: bytes.Repeat([]byte{3}, 3*4096), size - 1: {9},
	} {
		if _, err := raw.WriteAt(body, off); err != nil {
			t.Fatal(err)
		}
	}
	dev := &memDevice{data: make([]byte, size)}
	n, err := transfer.Import(t.Context(), dev, raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, size)
	if _, err := raw.ReadAt(want, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(dev.data, want) || !dev.flushed {
		t.Error("the device doesn't hold the file, or wasn't flushed")
	}
	if n != 6*4096 || dev.written != n {
		t.Errorf("wrote %d bytes and said %d, want 6 blocks", dev.written, n)
	}
	if _, err := transfer.Import(t.Context(), &memDevice{data: make([]byte, 4096)}, raw,
		nil); !errs.Is(err, errs.Invalid) {
		t.Errorf("a file larger than the device: %v", err)
	}
}

// broken fails where a test wants it to.
type broken struct {
	*disk.Disk
	after int64
}

func (b *broken) ReadAt(ctx context.Context, p []byte, off int64) error {
	if off >= b.after {
		return errs.New(errs.Corrupt, "by the test")
	}
	return b.Disk.ReadAt(ctx, p, off)
}

func (b *broken) WriteAt(ctx context.Context, p []byte, off int64) error {
	if off >= b.after {
		return errs.New(errs.Exhausted, "by the test")
	}
	return b.Disk.WriteAt(ctx, p, off)
}

func TestErrorsAreToldAsTheyAre(t *testing.T) {
	d, in := newDisk(t), newFile(t)
	content := bytes.Repeat([]byte{7}, 8<<20)
	if _, err := in.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := transfer.Import(testCtx(t), &broken{d, 4 << 20}, in, nil); !errs.Is(err,
		errs.Exhausted) {
		t.Errorf("import: %v", err)
	}
	if err := d.WriteAt(testCtx(t), content, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := transfer.Export(testCtx(t), &broken{d, 4 << 20}, newFile(t), nil); !errs.Is(err,
		errs.Corrupt) {
		t.Errorf("export: %v", err)
	}
	if err := transfer.ExportImage(testCtx(t), &broken{d, 4 << 20}, filepath.Join(t.TempDir(), "x"),
		"qcow2", nil); err == nil {
		t.Error("an export by qemu-img of a disk that can't be read succeeded")
	}
	ctx, cancel := context.WithCancel(testCtx(t))
	cancel()
	if err := transfer.ExportImage(ctx, d, filepath.Join(t.TempDir(), "x"), "qcow2",
		nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled export: %v", err)
	}
	if err := in.Truncate(size + 1); err != nil {
		t.Fatal(err)
	}
	if _, err := transfer.Import(testCtx(t), d, in, nil); !errs.Is(err, errs.Invalid) {
		t.Errorf("an image that is too large: %v", err)
	}
}

// TestImagesByQemu goes to qcow2 and back, and sees progress that ends at the end.
func TestImagesByQemu(t *testing.T) {
	d, back := newDisk(t), newDisk(t)
	content := bytes.Repeat([]byte("sluice "), 1<<20)
	if err := d.WriteAt(testCtx(t), content, 12345); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "image")
	var last, total int64
	if err := transfer.ExportImage(testCtx(t), d, file, "qcow2",
		func(done, of int64) { last, total = done, of }); err != nil {
		t.Fatal(err)
	}
	if last != size || total != size {
		t.Errorf("progress ended at %d of %d", last, total)
	}
	if x, err := transfer.Probe(testCtx(t), file, "qcow2"); err != nil || x.Size != size ||
		x.Format != "qcow2" {
		t.Fatalf("%+v %v", x, err)
	}
	if err := transfer.ImportImage(testCtx(t), back, file, "qcow2", nil); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(content))
	if err := back.ReadAt(testCtx(t), got, 12345); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the content differs (%v)", err)
	}
}
