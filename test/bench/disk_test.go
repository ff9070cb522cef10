//go:build bench

package bench

import (
	"encoding/binary"
	"iter"
	"math/rand/v2"
	"testing"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	diskPath  = "disks/d"
	blockSize = disk.BlockSize
)

// attachDisk makes the test the writer of the disk at diskPath, whoever was it before.
func attachDisk(t *testing.T, store blob.Store, dev *cache.Cache,
	tune ...func(*disk.AttachOptions)) *disk.Disk {
	t.Helper()
	head, err := disk.ReadHead(t.Context(), store, diskPath)
	if err != nil {
		t.Fatal(err)
	}
	o := disk.AttachOptions{Generation: head.Generation + 1, Holder: "bench", Cache: dev}
	for _, f := range tune {
		f(&o)
	}
	d, err := disk.Attach(t.Context(), store, diskPath, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Abandon)
	return d
}

func closeDisk(t *testing.T, d *disk.Disk) {
	t.Helper()
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// sequential gives the blocks 0 to n-1.
func sequential(n uint64) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for b := range n {
			if !yield(b) {
				return
			}
		}
	}
}

// randomBlocks gives n of the first total blocks, some more than once.
func randomBlocks(n, total uint64) iter.Seq[uint64] {
	rng := rand.New(rand.NewPCG(n, total))
	return func(yield func(uint64) bool) {
		for range n {
			if !yield(rng.Uint64N(total)) {
				return
			}
		}
	}
}

// writeBlocks writes content that differs from block to block, and compresses well.
func writeBlocks(t *testing.T, d *disk.Disk, blocks iter.Seq[uint64]) {
	t.Helper()
	buf := make([]byte, blockSize)
	for b := range blocks {
		binary.LittleEndian.PutUint64(buf, b+1)
		if err := d.WriteAt(t.Context(), buf, int64(b)*blockSize); err != nil {
			t.Fatal(err)
		}
	}
}

// readBlocks reads blocks that writeBlocks wrote, and checks them.
func readBlocks(t *testing.T, d *disk.Disk, blocks iter.Seq[uint64]) {
	t.Helper()
	buf := make([]byte, blockSize)
	for b := range blocks {
		if err := d.ReadAt(t.Context(), buf, int64(b)*blockSize); err != nil {
			t.Fatal(err)
		}
		if got := binary.LittleEndian.Uint64(buf); got != b+1 {
			t.Fatal(errs.New(errs.Corrupt, "block %d has the content of %d", b, got-1))
		}
	}
}
