package disk_test

import (
	"math/rand/v2"
	"testing"

	"github.com/sluice-platform/sluice/internal/blob/fileblob"
	"github.com/sluice-platform/sluice/internal/disk"
)

func benchDisk(b *testing.B, size int64) *disk.Disk {
	b.Helper()
	store := newSim().client()
	ctx := b.Context()
	if _, err := disk.Create(ctx, store, path, disk.CreateOptions{Size: size}); err != nil {
		b.Fatal(err)
	}
	d, err := disk.Attach(ctx, store, path, disk.AttachOptions{Generation: 1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(d.Abandon)
	return d
}

func BenchmarkWrite4K(b *testing.B) {
	d := benchDisk(b, 1<<30)
	buf := make([]byte, 4096)
	fill(buf, 1)
	rng := rand.New(rand.NewPCG(1, 1))
	b.SetBytes(4096)
	b.ReportAllocs()
	for b.Loop() {
		if err := d.WriteAt(b.Context(), buf, rng.Int64N(1<<18)*4096); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWriteSequential1M(b *testing.B) {
	d := benchDisk(b, 1<<30)
	buf := make([]byte, 1<<20)
	fill(buf, 1)
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	var off int64
	for b.Loop() {
		if err := d.WriteAt(b.Context(), buf, off); err != nil {
			b.Fatal(err)
		}
		off = (off + 1<<20) % (256 << 20)
	}
}

func BenchmarkFlush4K(b *testing.B) {
	d := benchDisk(b, 1<<30)
	buf := make([]byte, 4096)
	fill(buf, 1)
	b.ReportAllocs()
	var off int64
	for b.Loop() {
		if err := d.WriteAt(b.Context(), buf, off); err != nil {
			b.Fatal(err)
		}
		if err := d.Flush(b.Context()); err != nil {
			b.Fatal(err)
		}
		off = (off + 4096) % (64 << 20)
	}
}

func BenchmarkRead4KCached(b *testing.B) {
	d := benchDisk(b, 1<<30)
	if err := d.WriteAt(b.Context(), make([]byte, 8<<20), 0); err != nil {
		b.Fatal(err)
	}
	if err := d.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 4096)
	rng := rand.New(rand.NewPCG(1, 1))
	b.SetBytes(4096)
	b.ReportAllocs()
	for b.Loop() {
		if err := d.ReadAt(b.Context(), buf, rng.Int64N(2048)*4096); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMove closes a disk with a little dirty data and attaches it again, on a directory: the
// disk's part of a machine's pause.
func BenchmarkMove(b *testing.B) {
	store, err := fileblob.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = store.Close() })
	ctx := b.Context()
	if _, err := disk.Create(ctx, store, path, disk.CreateOptions{Size: 100 << 30}); err != nil {
		b.Fatal(err)
	}
	gen := uint64(1)
	d, err := disk.Attach(ctx, store, path, disk.AttachOptions{Generation: gen})
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 4096)
	for b.Loop() {
		for i := range int64(20) {
			if err := d.WriteAt(ctx, buf, i*(4<<30)); err != nil {
				b.Fatal(err)
			}
		}
		if err := d.Close(ctx); err != nil {
			b.Fatal(err)
		}
		gen++
		if d, err = disk.Attach(ctx, store, path, disk.AttachOptions{Generation: gen}); err != nil {
			b.Fatal(err)
		}
		if err := d.ReadAt(ctx, buf, 8<<30); err != nil {
			b.Fatal(err)
		}
	}
	d.Abandon()
}
