//go:build bench

package bench

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob/fileblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/blockmap"
	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/disk/format"
)

// TestDiskMapMemory fills the map of a 100 GiB disk, every block of it and all in memory, in runs
// of 64 KiB and in single blocks, in an order that no writer would choose, and measures the heap
// beside the bytes that a plain table of one word per block takes.
func TestDiskMapMemory(t *testing.T) {
	const size, table = 100 << 30, (100 << 30) / format.BlockSize * 8
	for _, tc := range []struct {
		what  string
		run   uint64 // blocks
		order func(n int) []uint32
		bound float64
	}{
		{"64 KiB extents, written in order, so that they join", 16, inOrder, 30},
		{"64 KiB extents, written in random order", 16, shuffled, 30},
		{"single blocks in random order, the worst case", 1, shuffled, 220},
	} {
		before := heapInUse()
		m := blockmap.New(size, nil, 0, nil, 1<<62)
		n := int(size / format.BlockSize / tc.run)
		fillMap(t, m, tc.order(n), func(i uint64) uint64 { return i * tc.run }, tc.run)
		used := float64(heapInUse()-before) / 1e6
		if m.Mapped() != size/format.BlockSize {
			t.Fatalf("%d blocks mapped", m.Mapped())
		}
		fmt.Printf(
			"RESULT memory of a full 100 GiB map, %s: %.1f MB (bound %.0f), %.2f × a plain table of %.0f MB; its own estimate %.1f MB\n",
			tc.what, used, tc.bound, used*1e6/table, table/1e6, float64(m.Bytes())/1e6)
		runtime.KeepAlive(m)
	}
}

// fillMap maps runs of blocks, where at says that the i-th of them is, in order, 8 MiB to a segment
// as the log has it.
func fillMap(t *testing.T, m *blockmap.Map, order []uint32, at func(i uint64) uint64, run uint64) {
	t.Helper()
	const segBlocks = (8 << 20) / format.BlockSize
	runs := make([]format.Run, 0, segBlocks)
	for seq := uint64(1); len(order) > 0; seq++ {
		n := min(len(order), int(segBlocks/run))
		runs = runs[:0]
		for _, i := range order[:n] {
			runs = append(runs, format.Run{LBA: at(uint64(i)), Count: run})
		}
		order = order[n:]
		seg := format.SegmentEntry{Kind: format.KindLog, Epoch: 1, Seq: seq, Size: 8 << 20,
			HeaderLen: 4096, Blocks: uint32(uint64(n) * run)}
		if err := m.Apply(seg, runs, format.Position{Epoch: 1, Seq: seq + 1}); err != nil {
			t.Fatal(err)
		}
	}
}

// inOrder gives the indexes 0 to n-1.
func inOrder(n int) []uint32 {
	order := make([]uint32, n)
	for i := range order {
		order[i] = uint32(i)
	}
	return order
}

// shuffled gives the same in random order.
func shuffled(n int) []uint32 {
	order := inOrder(n)
	rand.New(rand.NewPCG(1, 2)).Shuffle(n,
		func(i, j int) { order[i], order[j] = order[j], order[i] })
	return order
}

// heapInUse returns the bytes of live objects.
func heapInUse() int64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.GC() // what a finalizer or a pool held on to
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// TestIdleDiskHeap measures what an attached disk that has nothing to do keeps on the heap: fresh,
// and after it was read and written, without a cache device and with one.
func TestIdleDiskHeap(t *testing.T) {
	const work = 512 << 20
	ctx := t.Context()
	store, err := fileblob.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if _, err := disk.Create(ctx, store, diskPath,
		disk.CreateOptions{Size: 100 << 30}); err != nil {
		t.Fatal(err)
	}
	d := attachDisk(t, store, nil)
	writeBlocks(t, d, sequential(work/blockSize))
	closeDisk(t, d)
	for _, cached := range []bool{false, true} {
		var dev *cache.Cache
		with := "no cache device"
		if cached {
			with = "a cache device"
			if dev, err = cache.Open(filepath.Join(t.TempDir(), "cache"), 1<<30); err != nil {
				t.Fatal(err)
			}
		}
		for _, tc := range []struct {
			after string
			do    func(*disk.Disk)
		}{
			{"an attach", func(*disk.Disk) {}},
			{"256 MiB of random reads", func(d *disk.Disk) {
				readBlocks(t, d,
					randomBlocks(256<<20/blockSize, work/blockSize))
			}},
			{"256 MiB of random writes", func(d *disk.Disk) {
				writeBlocks(t, d, randomBlocks(256<<20/blockSize, work/blockSize))
				if err := d.Flush(ctx); err != nil {
					t.Fatal(err)
				}
			}},
		} {
			before := heapInUse()
			d := attachDisk(t, store, dev,
				func(o *disk.AttachOptions) { o.FrameIdle = idleWait / 3 })
			tc.do(d)
			time.Sleep(idleWait)
			used := heapInUse() - before
			fmt.Printf("RESULT heap of an idle disk with %s, after %s: %.1f MB (bound 20)\n", with,
				tc.after, float64(used)/1e6)
			closeDisk(t, d)
		}
		if dev != nil {
			if err := dev.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// idleWait is how long a disk is left alone until it is measured. What it gives back after a minute
// of rest, it gives back here after a third of this.
const idleWait = 6 * time.Second
