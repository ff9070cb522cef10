package disk_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/fileblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const path = "disks/a"

func create(t *testing.T, s blob.Store, p string, size int64) {
	t.Helper()
	if _, err := disk.Create(testCtx(t), s, p, disk.CreateOptions{Size: size}); err != nil {
		t.Fatal(err)
	}
}

// attach attaches and makes sure that nothing of it is left after the test.
func attach(t *testing.T, s blob.Store, p string, gen uint64,
	change ...func(*disk.AttachOptions)) *disk.Disk {
	t.Helper()
	opts := disk.AttachOptions{Generation: gen, Holder: fmt.Sprint("vm-", gen)}
	for _, f := range change {
		f(&opts)
	}
	d, err := disk.Attach(testCtx(t), s, p, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Abandon)
	return d
}

func mustClose(t *testing.T, d *disk.Disk) {
	t.Helper()
	if err := d.Close(testCtx(t)); err != nil {
		t.Fatal(err)
	}
}

// small makes everything happen often: tiny objects, frequent checkpoints, little memory.
func small(o *disk.AttachOptions) {
	o.ObjectBytes, o.DirtyBytes, o.CheckpointObjects = 64<<10, 1<<20, 4
	o.MapBytes, o.FrameBytes = 1<<20, 1<<20
}

// churn changes d and want alike, at random.
func churn(t *testing.T, ctx context.Context, rng *rand.Rand, d disk.Device,
	want []byte, steps int) {
	t.Helper()
	for range steps {
		off := rng.Int64N(int64(len(want)))
		n := 1 + rng.Int64N(min(int64(len(want))-off, 120_000))
		if rng.IntN(3) == 0 { // aligned, as a file system does it
			off, n = off&^4095, (n+4095)&^4095
			n = min(n, int64(len(want))-off)
		}
		part := want[off : off+n]
		var err error
		switch k := rng.IntN(10); {
		case k < 6:
			fill(part, rng.Uint64())
			err = d.WriteAt(ctx, part, off)
		case k == 6:
			clear(part)
			err = d.Trim(ctx, off, n)
		case k == 7:
			clear(part)
			err = d.Zero(ctx, off, n)
		case k == 8:
			err = d.Flush(ctx)
		default:
			got := make([]byte, n)
			if err = d.ReadAt(ctx, got, off); err == nil && !bytes.Equal(got, part) {
				t.Fatalf("read of %d at %d differs", n, off)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// fill writes content that differs by seed and place, and that compresses in part.
func fill(p []byte, seed uint64) {
	for i := range p {
		if i%16 == 0 {
			seed = seed*6364136223846793005 + 1442695040888963407
		}
		p[i] = byte(seed >> (40 + i%8))
	}
}

func checkAll(t *testing.T, ctx context.Context, d disk.Device, want []byte) {
	t.Helper()
	got := make([]byte, 1<<20)
	for off := 0; off < len(want); off += len(got) {
		n := min(len(got), len(want)-off)
		if err := d.ReadAt(ctx, got[:n], int64(off)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got[:n], want[off:off+n]) {
			for i := range n {
				if got[i] != want[off+i] {
					t.Fatalf("byte %d (block %d) is %#x, want %#x", off+i, (off+i)/4096,
						got[i], want[off+i])
				}
			}
		}
	}
}

func TestContentAgainstAFlatImage(t *testing.T) {
	for _, cached := range []bool{false, true} {
		t.Run(fmt.Sprintf("cached=%v", cached), func(t *testing.T) {
			ctx := testCtx(t)
			store := newSim().client()
			want := make([]byte, 5<<20+4096)
			create(t, store, path, int64(len(want)))
			rng := rand.New(rand.NewPCG(7, 7))
			tune := []func(*disk.AttachOptions){small}
			if cached {
				c, err := cache.Open(filepath.Join(t.TempDir(), "cache"), 3<<20)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = c.Close() })
				tune = append(tune, func(o *disk.AttachOptions) { o.Cache = c })
			}
			for gen := range uint64(5) {
				d := attach(t, store, path, gen+1, tune...)
				churn(t, ctx, rng, d, want, 45)
				checkAll(t, ctx, d, want)
				if gen%2 == 0 {
					mustClose(t, d)
					continue
				}
				if err := d.Flush(ctx); err != nil { // a crash after a flush
					t.Fatal(err)
				}
				d.Abandon()
			}
			d := attach(t, store, path, 9, tune...)
			checkAll(t, ctx, d, want)
			mustClose(t, d)
			r, err := disk.OpenReadOnly(ctx, store, path, "", disk.ReadOnlyOptions{})
			if err != nil {
				t.Fatal(err)
			}
			checkAll(t, ctx, r, want)
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestBadInput(t *testing.T) {
	ctx := testCtx(t)
	store := newSim().client()
	for _, size := range []int64{0, -4096, 100, disk.MaxSize + 4096} {
		if _, err := disk.Create(ctx, store, path, disk.CreateOptions{Size: size}); !errs.Is(err,
			errs.Invalid) {
			t.Errorf("size %d: %v", size, err)
		}
	}
	for _, p := range []string{"", "/a", "a/../b", "a//b"} {
		if _, err := disk.Create(ctx, store, p, disk.CreateOptions{Size: 4096}); !errs.Is(err,
			errs.Invalid) {
			t.Errorf("path %q: %v", p, err)
		}
	}
	if _, err := disk.Attach(ctx, store, path, disk.AttachOptions{Generation: 1}); !errs.Is(err,
		errs.NotFound) || errs.RemedyOf(err) == "" {
		t.Errorf("attach of nothing: %v", err)
	}
	create(t, store, path, 8192)
	if _, err := disk.Create(ctx, store, path, disk.CreateOptions{Size: 8192}); !errs.Is(err,
		errs.Exists) {
		t.Errorf("create twice: %v", err)
	}
	if _, err := disk.Attach(ctx, store, path, disk.AttachOptions{}); !errs.Is(err, errs.Invalid) {
		t.Errorf("no generation: %v", err)
	}
	d := attach(t, store, path, 1)
	buf := make([]byte, 4096)
	for _, off := range []int64{-1, 4097, 8192, 1 << 62} {
		if err := d.ReadAt(ctx, buf, off); !errs.Is(err, errs.Invalid) {
			t.Errorf("read at %d: %v", off, err)
		}
		if err := d.WriteAt(ctx, buf, off); !errs.Is(err, errs.Invalid) {
			t.Errorf("write at %d: %v", off, err)
		}
		if err := d.Trim(ctx, off, 4096); !errs.Is(err, errs.Invalid) {
			t.Errorf("trim at %d: %v", off, err)
		}
	}
	mustClose(t, d)
	if err := d.WriteAt(ctx, buf, 0); err == nil {
		t.Error("write after close")
	}
}

func TestFlushWithNothingToDoMakesNoRequest(t *testing.T) {
	ctx := testCtx(t)
	store := newSim().client()
	create(t, store, path, 1<<30)
	d := attach(t, store, path, 1, func(o *disk.AttachOptions) { o.Revalidate = -1 })
	if err := d.WriteAt(ctx, make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	before := store.requests()
	for range 10 {
		if err := d.Flush(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if n := store.requests() - before; n != 0 {
		t.Fatalf("%d requests", n)
	}
	if s := d.Stats(); s.LogObjects != 1 || s.Flushes != 11 {
		t.Fatalf("%+v", s)
	}
}

func TestConcurrentFlushesShareObjects(t *testing.T) {
	ctx := testCtx(t)
	store := newSim().client()
	create(t, store, path, 1<<30)
	d := attach(t, store, path, 1)
	store.latency = 20 * time.Millisecond
	const writers, rounds = 32, 4
	done := make(chan error, writers)
	for w := range writers {
		go func() {
			for i := range rounds {
				if err := d.WriteAt(ctx, make([]byte, 4096), int64(w*rounds+i)*4096); err != nil {
					done <- err
					return
				}
				if err := d.Flush(ctx); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range writers {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if n := d.Stats().LogObjects; n > writers*rounds/2 {
		t.Fatalf("%d log objects for %d flushes", n, writers*rounds)
	}
}

func TestIdleWritesReachTheStore(t *testing.T) {
	ctx := testCtx(t)
	store := newSim().client()
	create(t, store, path, 1<<30)
	d := attach(t, store, path, 1,
		func(o *disk.AttachOptions) { o.SealInterval = 10 * time.Millisecond })
	if err := d.WriteAt(ctx, make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the log object", func() bool { return d.Stats().LogObjects == 1 })
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s", what)
		}
	}
}

// TestOnARealDirectory runs a session, a fork and a takeover over the file driver.
func TestOnARealDirectory(t *testing.T) {
	ctx := testCtx(t)
	store, err := fileblob.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	rng := rand.New(rand.NewPCG(2, 2))
	want := make([]byte, 2<<20)
	create(t, store, path, int64(len(want)))
	a := attach(t, store, path, 1, small)
	churn(t, ctx, rng, a, want, 30)
	if _, err := a.Checkpoint(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	if _, err := disk.Fork(ctx, store, path, "c", "disks/b", disk.ForkOptions{}); err != nil {
		t.Fatal(err)
	}
	b := attach(t, store, "disks/b", 1)
	checkAll(t, ctx, b, want)
	mustClose(t, b)
	next := attach(t, store, path, 2)
	checkAll(t, ctx, next, want)
	if err := a.WriteAt(ctx, want[:4096], 0); err == nil {
		err = a.Flush(ctx)
		wantKind(t, "flush of the old writer", err, errs.Fenced)
	}
	mustClose(t, next)
	info, err := disk.Info(ctx, store, path)
	if err != nil || info.LogObjects == 0 || len(info.Checkpoints) != 1 {
		t.Fatalf("%+v %v", info, err)
	}
}

func TestNothingRunsAfterDetach(t *testing.T) {
	ctx := testCtx(t)
	store := newSim().client()
	create(t, store, path, 1<<20)
	before := runtime.NumGoroutine()
	for gen := range uint64(4) {
		d := attach(t, store, path, gen+1)
		if err := put(t, ctx, d, 0, gen); err != nil {
			t.Fatal(err)
		}
		if gen%2 == 0 {
			mustClose(t, d)
		}
		d.Abandon()
		select {
		case <-d.Stopped():
		default:
			t.Error("still open")
		}
	}
	// A goroutine is counted for a moment after its last statement.
	waitFor(t, "end of all goroutines", func() bool { return runtime.NumGoroutine() <= before })
}
