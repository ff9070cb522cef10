package disk_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// requestsOf returns how many requests f makes over a client, by looking at the client before and
// after.
func requestsOf(c *simClient, f func()) int {
	before := c.requests()
	f()
	return c.requests() - before
}

// TestAttachAndCloseCostTheSameAtAnySize counts requests for disks of 16 MiB to 16 TiB, with few
// and with many mapped regions.
func TestAttachAndCloseCostTheSameAtAnySize(t *testing.T) {
	ctx := testCtx(t)
	for _, tc := range []struct {
		size    int64
		regions int
	}{{16 << 20, 1}, {1 << 40, 300}, {disk.MaxSize, 3000}} {
		s := newSim()
		store := s.client()
		create(t, store, path, tc.size)
		quiet := func(o *disk.AttachOptions) {
			o.ObjectBytes, o.SealInterval, o.Revalidate = 32<<20,
				time.Hour, -1
		}
		d := attach(t, store, path, 1, quiet)
		step := tc.size / int64(tc.regions) &^ 4095
		for i := range int64(tc.regions) {
			if err := d.WriteAt(ctx, bytes.Repeat([]byte{1}, 4096), i*step); err != nil {
				t.Fatal(err)
			}
		}
		// log object; pages and root side by side, and a look at the log object; head, and a look
		// at pages and root
		if n := requestsOf(store, func() { mustClose(t, d) }); n > 7 {
			t.Errorf("size %d: a close took %d requests", tc.size, n)
		}
		for _, k := range s.keys("/root") {
			if n := len(s.objs[k].body); n > 100<<10 {
				t.Errorf("size %d: map root of %d bytes", tc.size, n)
			}
		}
		// head; swap beside root; and the newest pages in the background
		gen := uint64(2)
		if n := requestsOf(store, func() { d = attach(t, store, path, gen, quiet) }); n > 4 {
			t.Errorf("size %d: an attach took %d requests", tc.size, n)
		}
		// the background is done
		for before := -1; before != store.requests(); time.Sleep(50 * time.Millisecond) {
			before = store.requests()
		}
		if n := requestsOf(store, func() { mustClose(t, d) }); n != 1 {
			t.Errorf("size %d: a close with nothing to do took %d requests", tc.size, n)
		}
		// directory, region, segment table, log object
		d = attach(t, store, path, 3, quiet)
		buf := make([]byte, 4096)
		if n := requestsOf(store, func() {
			if err := d.ReadAt(ctx, buf, step*int64(tc.regions-1)); err != nil || buf[7] != 1 {
				t.Fatal(err, buf[7])
			}
		}); n > 5 {
			t.Errorf("size %d: a first read took %d requests", tc.size, n)
		}
		d.Abandon()
	}
}

func TestDiscardOfAnEmptyHugeDiskIsFree(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, disk.MaxSize)
	d := attach(t, s.client(), path, 1)
	start := time.Now()
	if err := d.Trim(ctx, 0, disk.MaxSize); err != nil {
		t.Fatal(err)
	}
	if err := d.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %v", took)
	}
	for _, k := range s.keys("/log/") {
		if n := len(s.objs[k].body); n > 200 {
			t.Errorf("log object of %d bytes", n)
		}
	}
	mustClose(t, d)
}

// TestPreparedAttach prepares while the source still writes, then attaches after its clean close:
// the head and the swap, and of the map only what changed.
func TestPreparedAttach(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	rng := rand.New(rand.NewPCG(4, 4))
	want := make([]byte, 8<<20)
	create(t, s.client(), path, int64(len(want)))
	src := attach(t, s.client(), path, 1, small)
	churn(t, ctx, rng, src, want, 100)
	if err := src.Settle(ctx); err != nil {
		t.Fatal(err)
	}
	c := s.client()
	p, err := disk.Prepare(ctx, c, path, disk.PrepareOptions{})
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, src) // nothing changed: the root still holds
	var d *disk.Disk
	withIt := func(o *disk.AttachOptions) { small(o); o.Prepared, o.ReadAhead = p, -1 }
	if n := requestsOf(c, func() { d = attach(t, c, path, 2, withIt) }); n != 2 {
		t.Errorf("an attach with a fresh preparation took %d requests", n)
	}
	gets := c.count("get")
	checkAll(t, ctx, d, want)
	t.Logf("reading it all took %d gets", c.count("get")-gets)

	if p, err = disk.Prepare(ctx, c, path, disk.PrepareOptions{}); err != nil {
		t.Fatal(err)
	}
	churn(t, ctx, rng, d, want, 30) // changed after the preparation
	mustClose(t, d)
	d = attach(t, c, path, 3, withIt)
	checkAll(t, ctx, d, want)
	mustClose(t, d)
	d = attach(t, c, path, 4, withIt) // used twice and stale: still right
	checkAll(t, ctx, d, want)
}

func TestSequentialReadsUseFewLargeRequests(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, 64<<20)
	d := attach(t, s.client(), path, 1)
	data := make([]byte, 6<<20)
	fill(data, 1)
	if err := d.WriteAt(ctx, data, 0); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
	c := s.client()
	// as of a store; else the reader may be ahead of what reads ahead
	c.latency = 2 * time.Millisecond
	d = attach(t, c, path, 2)
	buf := make([]byte, 128<<10)
	for off := int64(0); off < int64(len(data)); off += int64(len(buf)) {
		if err := d.ReadAt(ctx, buf, off); err != nil ||
			!bytes.Equal(buf, data[off:off+int64(len(buf))]) {
			t.Fatal(off, err)
		}
	}
	if n := c.count("get"); n > 25 {
		t.Errorf("%d gets for 6 MiB", n)
	}
}

// TestRereadsComeFromTheCache also flips bits on the cache device: that costs a request and nothing
// else.
func TestRereadsComeFromTheCache(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	create(t, s.client(), path, 64<<20)
	c := s.client()
	file := filepath.Join(t.TempDir(), "cache")
	dev, err := cache.Open(file, 32<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	withCache := func(o *disk.AttachOptions) { o.Cache, o.FrameBytes, o.ReadAhead = dev, 1<<20, -1 }
	d := attach(t, c, path, 1, withCache)
	data := make([]byte, 4<<20)
	fill(data, 2)
	if err := d.WriteAt(ctx, data, 0); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
	d = attach(t, c, path, 2, withCache)
	buf := make([]byte, 4096)
	if err := d.ReadAt(ctx, buf, 0); err != nil { // loads the map
		t.Fatal(err)
	}
	gets := c.count("get")
	checkAll(t, ctx, d, data)
	if n := c.count("get") - gets; n > 0 {
		t.Errorf("%d gets for what was just written", n)
	}
	flipFile(t, file, 4<<20)
	checkAll(t, ctx, d, data)
	if dev.Stats().Corrupt == 0 {
		t.Error("no flipped bit was noticed")
	}
}

func TestCorruptObjectsAreNoticed(t *testing.T) {
	for _, tc := range []struct {
		part string
		at   int // bytes from the end
	}{{"/log/", 9000}, {"/pages", 5}, {"/root", 3}} {
		t.Run(tc.part, func(t *testing.T) {
			ctx := testCtx(t)
			s := newSim()
			create(t, s.client(), path, 1<<20)
			d := attach(t, s.client(), path, 1)
			data := make([]byte, 256<<10)
			for i := range data {
				data[i] = byte(rand.Uint32())
			}
			if err := d.WriteAt(ctx, data, 0); err != nil {
				t.Fatal(err)
			}
			mustClose(t, d)
			if s.corrupt(tc.part, tc.at) == 0 {
				t.Fatal("nothing to corrupt")
			}
			d, err := disk.Attach(ctx, s.client(), path, disk.AttachOptions{Generation: 2})
			if err != nil {
				wantKind(t, "attach", err, errs.Corrupt)
				return
			}
			defer d.Abandon()
			buf := make([]byte, len(data))
			wantKind(t, "read", d.ReadAt(ctx, buf, 0), errs.Corrupt)
			wantKind(t, "write after that", d.WriteAt(ctx, buf, 0), errs.Corrupt)
		})
	}
}

// TestReplayIsBounded writes much with a map that can't be written: uploads stop before the log
// grows without bound, and go on when it can.
func TestReplayIsBounded(t *testing.T) {
	ctx, cancel := context.WithTimeout(testCtx(t), 20*time.Second)
	defer cancel()
	s := newSim()
	create(t, s.client(), path, 64<<20)
	c := s.client()
	d := attach(t, c, path, 1, small,
		func(o *disk.AttachOptions) { o.StallTimeout = 50 * time.Millisecond })
	c.setJudge(func(_ int, op, _ string) verdict {
		if op == "match" {
			return refuse
		}
		return pass
	})
	for i := 0; ; i++ {
		if err := put(t, ctx, d, i, 1); err != nil {
			wantKind(t, "flush", err, errs.Unavailable)
			break
		}
		if i > 40 {
			t.Fatal("the log grows although the map can't be written")
		}
	}
	c.setJudge(nil)
	waitFor(t, "recovery", func() bool { return d.Flush(ctx) == nil })
	d.Abandon()
	d = attach(t, s.client(), path, 2)
	if n := d.Stats().Replayed; n > 20 {
		t.Errorf("replayed %d objects", n)
	}
}

// flipFile flips a bit in every 4 KiB of the first n bytes of a file.
func flipFile(t *testing.T, name string, n int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	for off := int64(100); off < n; off += 4096 {
		if _, err := f.ReadAt(b, off); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 1
		if _, err := f.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
	}
}
