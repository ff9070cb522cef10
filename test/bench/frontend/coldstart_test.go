//go:build bench

package frontend

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/cache"
)

const (
	imageSize    = 512 << 20
	startReads   = 400                  // of a start, each after the one before, of 4 to 64 KiB
	startWork    = 1 * time.Millisecond // between two of them
	storeLatency = 20 * time.Millisecond
)

// TestColdStart measures a start, from the attach on, that reads here and there in an image and
// computes in between: of a fork that was started before on this host, of a fork new to it with the
// trace of an earlier one, and of the same without.
func TestColdStart(t *testing.T) {
	ctx, near := t.Context(), memblob.New()
	store := decorate.Latency(near, storeLatency)
	makeImage(t, near)
	at := startPlan()
	// The first fork leaves its trace.
	first, c := fork(t, near, store, "disks/first")
	start(t, first, at)
	if err := first.WriteAt(ctx, make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(ctx); err != nil {
		t.Fatal(err)
	}
	var warm, traced, cold []time.Duration
	for round := range 5 {
		warm = append(warm, timed(func() {
			d := attachFork(t, store, "disks/first", uint64(round)+2, c)
			start(t, d, at)
			d.Abandon()
		}))
		cold = append(cold, newFork(t, near, store, fmt.Sprint("disks/cold", round), at))
	}
	disk.AdoptTrace(ctx, near, "images/debian", "v1")
	for round := range 5 {
		traced = append(traced, newFork(t, near, store, fmt.Sprint("disks/traced", round), at))
	}
	median := func(d []time.Duration) time.Duration { slices.Sort(d); return d[len(d)/2] }
	w, tr, co := median(warm), median(traced), median(cold)
	fmt.Printf(
		"RESULT start of %d dependent reads, store %v away: warm %v, a new fork with boot trace %v (%.2f x warm), without %v (%.2f x warm)\n",
		startReads, storeLatency, w.Round(time.Millisecond), tr.Round(time.Millisecond),
		float64(tr)/float64(w),
		co.Round(time.Millisecond), float64(co)/float64(w))
}

// TestSequentialRead reads a cold disk from end to end by 128 KiB requests, one after another.
func TestSequentialRead(t *testing.T) {
	near := memblob.New()
	makeImage(t, near)
	for _, latency := range []time.Duration{0, storeLatency} {
		for _, ahead := range []int64{-1, 0, 32 << 20} {
			d, err := disk.OpenReadOnly(t.Context(), decorate.Latency(near, latency),
				"images/debian", "v1",
				disk.ReadOnlyOptions{Tuning: disk.Tuning{ReadAhead: ahead}})
			if err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 128<<10)
			took := timed(func() {
				for off := int64(0); off < imageSize/4; off += int64(len(buf)) {
					if err := d.ReadAt(t.Context(), buf, off); err != nil {
						t.Fatal(err)
					}
				}
			})
			name := map[int64]string{-1: "none", 0: "default", 32 << 20: "32 MiB"}[ahead]
			fmt.Printf("RESULT cold sequential read, store %v away, readahead %s: %.0f MB/s\n",
				latency, name,
				float64(imageSize/4)/1e6/took.Seconds())
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func makeImage(t *testing.T, store blob.Store) {
	ctx := t.Context()
	if _, err := disk.Create(ctx, store, "images/debian",
		disk.CreateOptions{Size: imageSize}); err != nil {
		t.Fatal(err)
	}
	d, err := disk.Attach(ctx, store, "images/debian", disk.AttachOptions{Generation: 1})
	if err != nil {
		t.Fatal(err)
	}
	rng, b := rand.NewChaCha8([32]byte{1}), make([]byte, 1<<20)
	for off := int64(0); off < imageSize; off += int64(len(b)) {
		_, _ = rng.Read(b)
		clear(b[:len(b)/2]) // half of it compresses
		if err := d.WriteAt(ctx, b, off); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Checkpoint(ctx, "v1"); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

type read struct {
	off int64
	n   int
}

func startPlan() []read {
	rng := rand.New(rand.NewPCG(7, 7))
	plan := make([]read, startReads)
	for i := range plan {
		n := 4096 << rng.IntN(5)
		plan[i] = read{rng.Int64N((imageSize-int64(n))/4096) * 4096, n}
	}
	return plan
}

func start(t *testing.T, d *disk.Disk, plan []read) {
	buf := make([]byte, 64<<10)
	for _, r := range plan {
		if err := d.ReadAt(t.Context(), buf[:r.n], r.off); err != nil {
			t.Fatal(err)
		}
		time.Sleep(startWork)
	}
}

// fork makes a fork, and attaches it with a cache of its own.
func fork(t *testing.T, near, store blob.Store, name string) (*disk.Disk, *cache.Cache) {
	if _, err := disk.Fork(t.Context(), near, "images/debian", "v1", name,
		disk.ForkOptions{}); err != nil {
		t.Fatal(err)
	}
	c, err := cache.Open(filepath.Join(t.TempDir(), "cache"), imageSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return attachFork(t, store, name, 1, c), c
}

func attachFork(t *testing.T, store blob.Store, name string, generation uint64,
	c *cache.Cache) *disk.Disk {
	d, err := disk.Attach(context.WithoutCancel(t.Context()), store, name,
		disk.AttachOptions{Generation: generation, Holder: "bench", Cache: c,
			Tuning: disk.Tuning{BootWindow: time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func newFork(t *testing.T, near, store blob.Store, name string, plan []read) time.Duration {
	if _, err := disk.Fork(t.Context(), near, "images/debian", "v1", name,
		disk.ForkOptions{}); err != nil {
		t.Fatal(err)
	}
	c, err := cache.Open(filepath.Join(t.TempDir(), "cache"), imageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return timed(func() {
		d := attachFork(t, store, name, 1, c)
		start(t, d, plan)
		d.Abandon()
	})
}

func timed(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}
