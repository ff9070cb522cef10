package disk_test

import (
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/cache"
)

// TestBootTraceIsReadAhead: what one session reads first is in the cache when the next one begins, through
// Prepare, and in the background of a plain attach.
func TestBootTraceIsReadAhead(t *testing.T) {
	ctx, s := t.Context(), newSim()
	c := s.client()
	const path, size = "disks/boot", 64 << 20
	if _, err := disk.Create(ctx, c, path, disk.CreateOptions{Size: size}); err != nil {
		t.Fatal(err)
	}
	fill, rng := attach(t, c, path, 1), rand.New(rand.NewPCG(1, 2))
	quiet := disk.Tuning{BootWindow: time.Hour, ReadAhead: -1}
	for off := int64(0); off < 8<<20; off += 64 << 10 {
		data := make([]byte, 64<<10)
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		if err := fill.WriteAt(ctx, data, off); err != nil {
			t.Fatal(err)
		}
	}
	if err := fill.Close(ctx); err != nil {
		t.Fatal(err)
	}
	touched := []int64{5 << 20, 1 << 20, 3<<20 + 4096, 7 << 20}
	boot := func(d *disk.Disk) (misses uint64) {
		before := d.Stats().FrameMisses
		buf := make([]byte, 4096)
		for _, off := range touched {
			if err := d.ReadAt(ctx, buf, off); err != nil {
				t.Fatal(err)
			}
		}
		return d.Stats().FrameMisses - before
	}
	first, err := disk.Attach(ctx, c, path, disk.AttachOptions{Generation: 2, Holder: "a", Tuning: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if n := boot(first); n == 0 {
		t.Fatal("a cold boot missed nothing: this proves nothing")
	}
	if err := first.WriteAt(ctx, make([]byte, 4096), 20<<20); err != nil { // a close with nothing to write leaves no trace
		t.Fatal(err)
	}
	if err := first.Close(ctx); err != nil {
		t.Fatal(err)
	}

	dev, err := cache.Open(filepath.Join(t.TempDir(), "cache"), 16<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	p, err := disk.Prepare(ctx, c, path, disk.PrepareOptions{Cache: dev, Boot: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	second, err := disk.Attach(ctx, c, path, disk.AttachOptions{Generation: 3, Holder: "b", Cache: dev, Prepared: p, Tuning: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if n := boot(second); n != 0 {
		t.Errorf("%d frames were not there after Prepare", n)
	}
	if err := second.Close(ctx); err != nil {
		t.Fatal(err)
	}

	third, err := disk.Attach(ctx, c, path, disk.AttachOptions{Generation: 4, Holder: "c", Tuning: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer third.Abandon()
	deadline := time.Now().Add(10 * time.Second)
	for third.Stats().ReadAheads < uint64(len(touched)) && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if n := third.Stats().ReadAheads; n != uint64(len(touched)) {
		t.Errorf("a plain attach read %d frames ahead, the trace has %d", n, len(touched))
	}
}
