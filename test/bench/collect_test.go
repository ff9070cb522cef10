//go:build bench

package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/gc"
)

// TestCollect collects a pool of 100,000 objects in memory, half of which are garbage, and one of
// 5,000 on an S3 server: how long it takes, what it asks of the store, and how much of the heap is
// in use at most, per object.
func TestCollect(t *testing.T) {
	t.Run("memory", func(t *testing.T) { collectPool(t, memblob.New(), 200, 250) })
	t.Run("s3", func(t *testing.T) {
		s3 := versitygwtest.Start(t)
		s3.Setenv(t)
		store, err := blobs.Open(t.Context(), s3.URL("pool"))
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		collectPool(t, store, 20, 125)
	})
}

// collectPool fills a store with disks that were written twice, so many blocks each time with a
// flush after each, and collects it.
func collectPool(t *testing.T, store blob.Store, disks, blocks int) {
	var g errgroup.Group
	g.SetLimit(8)
	for i := range disks {
		g.Go(func() error {
			return overwritten(t.Context(), store,
				fmt.Sprint("disks/machine-", i), blocks)
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	var mu sync.Mutex
	asked := map[decorate.Op]int{}
	counted := decorate.Intercept(store, func(_ context.Context, op decorate.Op, _ string) error {
		mu.Lock()
		defer mu.Unlock()
		asked[op]++
		return nil
	})
	for round := range 2 {
		clear(asked)
		h := newHeap()
		start := time.Now()
		r, err := gc.Collect(t.Context(), counted, gc.Options{Grace: time.Hour,
			Now:      func() time.Time { return now.Add(time.Duration(round) * 2 * time.Hour) },
			Progress: h.phase})
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(start)
		n := r.Objects.Objects
		fmt.Printf(
			"RESULT collect round=%d disks=%d objects=%d garbage=%d freed=%d took=%v heap_bytes_per_object=%d requests_per_disk=%.1f requests: get %d, list %d, put %d, delete %d\n",
			round+1, disks, n, r.Waiting.Total().Objects, r.Freed.Total().Objects,
			took.Round(time.Millisecond), h.most/uint64(n),
			float64(asked[decorate.OpGet]+asked[decorate.OpList])/float64(disks),
			asked[decorate.OpGet], asked[decorate.OpList],
			asked[decorate.OpPut]+asked[decorate.OpPutIfAbsent], asked[decorate.OpDelete])
	}
}

// overwritten makes a disk and writes its first blocks in each of two sessions.
func overwritten(ctx context.Context, store blob.Store, path string, blocks int) error {
	if _, err := disk.Create(ctx, store, path, disk.CreateOptions{Size: 1 << 30}); err != nil {
		return err
	}
	buf := make([]byte, disk.BlockSize)
	for gen := range uint64(2) {
		d, err := disk.Attach(ctx, store, path, disk.AttachOptions{Generation: gen + 1,
			Holder: "bench", Tuning: disk.Tuning{BootWindow: -1}})
		if err != nil {
			return err
		}
		for i := range blocks {
			binary.LittleEndian.PutUint64(buf, gen<<32+uint64(i))
			if err := d.WriteAt(ctx, buf, int64(i)*disk.BlockSize); err != nil {
				return err
			}
			if err := d.Flush(ctx); err != nil {
				return err
			}
		}
		if err := d.Close(ctx); err != nil {
			return err
		}
	}
	return nil
}

// heap measures what is in use at the begin of each phase, beyond what was before.
type heap struct {
	before, most uint64
	last         string
	mu           sync.Mutex
}

func newHeap() *heap { return &heap{before: inUse()} }

func (h *heap) phase(name string, _, _ int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if name == h.last {
		return
	}
	h.last = name
	if n := inUse(); n > h.before {
		h.most = max(h.most, n-h.before)
	}
}

func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
