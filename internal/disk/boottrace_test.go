package disk_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestBootTraceIsReadAhead: what one session reads first is in the cache when the next one begins,
// through Prepare, and in the background of a plain attach.
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
	first, err := disk.Attach(ctx, c, path,
		disk.AttachOptions{Generation: 2, Holder: "a", Tuning: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if n := boot(first); n == 0 {
		t.Fatal("a cold boot missed nothing: this proves nothing")
	}
	// a close with nothing to write leaves no trace
	if err := first.WriteAt(ctx, make([]byte, 4096), 20<<20); err != nil {
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
	second, err := disk.Attach(ctx, c, path,
		disk.AttachOptions{Generation: 3, Holder: "b", Cache: dev, Prepared: p, Tuning: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if n := boot(second); n != 0 {
		t.Errorf("%d frames were not there after Prepare", n)
	}
	if err := second.Close(ctx); err != nil {
		t.Fatal(err)
	}

	third, err := disk.Attach(ctx, c, path,
		disk.AttachOptions{Generation: 4, Holder: "c", Tuning: quiet})
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

// TestForksInheritTheBootTrace: what the first fork of a checkpoint reads first is read ahead for
// later ones, before they have ever run; exactly that, and from the fork on.
func TestForksInheritTheBootTrace(t *testing.T) {
	ctx, s := testCtx(t), newSim()
	c := s.client()
	const image, size = "images/debian", 64 << 20
	create(t, c, image, size)
	fill := attach(t, c, image, 1)
	rng, data := rand.New(rand.NewPCG(1, 2)), make([]byte, 8<<20)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	if err := fill.WriteAt(ctx, data, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := fill.Checkpoint(ctx, "v1"); err != nil {
		t.Fatal(err)
	}
	mustClose(t, fill)
	touched := []int64{5 << 20, 1 << 20, 3<<20 + 4096, 7 << 20}
	quiet := func(o *disk.AttachOptions) {
		o.BootWindow, o.ReadAhead,
			o.Revalidate = time.Hour, -1, -1
	}
	fork := func(name string) *disk.Disk {
		t.Helper()
		if _, err := disk.Fork(ctx, c, image, "v1", name, disk.ForkOptions{}); err != nil {
			t.Fatal(err)
		}
		return attach(t, c, name, 1, quiet)
	}
	has := func() bool { return len(s.keys(image+"/boot/of/")) > 0 }

	first := fork("disks/first")
	buf := make([]byte, 4096)
	for _, off := range touched {
		if err := first.ReadAt(ctx, buf, off); err != nil {
			t.Fatal(err)
		}
	}
	// a close with nothing to write leaves no trace
	if err := first.WriteAt(ctx, buf, 20<<20); err != nil {
		t.Fatal(err)
	}
	mustClose(t, first)
	if has() {
		t.Fatal("the checkpoint has a trace before a fork took one: this proves nothing")
	}
	disk.AdoptTrace(ctx, c, image, "v1")
	second := fork("disks/second")
	if !has() {
		t.Fatal("the second fork did not keep the first one's trace")
	}
	deadline := time.Now().Add(10 * time.Second)
	for second.Stats().ReadAheads < uint64(len(touched)) && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	for _, off := range touched {
		if err := second.ReadAt(ctx, buf, off); err != nil ||
			!bytes.Equal(buf, data[off:off+4096]) {
			t.Fatalf("read at %d: %v", off, err)
		}
	}
	if st := second.Stats(); st.ReadAheads != uint64(len(touched)) {
		t.Errorf("%d frames were read ahead, the trace has %d", st.ReadAheads, len(touched))
	}
	second.Abandon()
	if n := requestsOf(c, func() { disk.AdoptTrace(ctx, c, image, "v1") }); n != 1 {
		t.Errorf("%d requests to see that there is a trace", n)
	}
}

// refusing is a store that refuses to hand out segments from some request on, as a gateway does
// whose VM has lost its token.
type refusing struct {
	blob.Store
	after   int64
	asked   atomic.Int64
	refused atomic.Int64
}

func (s *refusing) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	if (strings.Contains(key, "/seg/") || strings.Contains(key, "/log/")) &&
		s.asked.Add(1) > s.after {
		s.refused.Add(1)
		return blob.Object{}, errs.New(errs.Denied, "the store gateway doesn't know this token")
	}
	return s.Store.Get(ctx, key, r)
}

// TestWarmingUpEndsWithTheFirstRefusal: one refusal says that the others will be refused, too.
func TestWarmingUpEndsWithTheFirstRefusal(t *testing.T) {
	ctx, s := t.Context(), newSim()
	c := s.client()
	const path, size, step = "disks/boot", 64 << 20, 128 << 10
	create(t, c, path, size)
	fill, rng := attach(t, c, path, 1), rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 24<<20)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	if err := fill.WriteAt(ctx, data, 0); err != nil {
		t.Fatal(err)
	}
	mustClose(t, fill)
	quiet := disk.Tuning{BootWindow: time.Hour, ReadAhead: -1}
	first, err := disk.Attach(ctx, c, path,
		disk.AttachOptions{Generation: 2, Holder: "a", Tuning: quiet})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for off := int64(0); off < int64(len(data)); off += step {
		if err := first.ReadAt(ctx, buf, off); err != nil {
			t.Fatal(err)
		}
	}
	// a close with nothing to write leaves no trace
	if err := first.WriteAt(ctx, buf, 40<<20); err != nil {
		t.Fatal(err)
	}
	mustClose(t, first)

	dev, err := cache.Open(filepath.Join(t.TempDir(), "cache"), 16<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	all := &refusing{Store: c, after: 1 << 30}
	if _, err := disk.Prepare(ctx, all, path,
		disk.PrepareOptions{Cache: dev, Boot: time.Minute}); err != nil {
		t.Fatal(err)
	}
	cold, err := cache.Open(filepath.Join(t.TempDir(), "cold"), 16<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer cold.Close()
	some := &refusing{Store: c, after: 3}
	if _, err := disk.Prepare(ctx, some, path,
		disk.PrepareOptions{Cache: cold, Boot: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if asked := all.asked.Load(); asked < 150 {
		t.Fatalf("warming up takes %d requests: this proves nothing", asked)
	}
	if n := some.refused.Load(); n == 0 || n > 64 { // those that were under way already
		t.Errorf("%d requests were refused", n)
	}
}
