package blockmap

import (
	"testing"

	"github.com/sluice-platform/sluice/internal/disk/format"
)

// TestPreload reads all that a snapshot needs before what needs it is applied: writes over blocks
// of many regions and segments, across a region's end, and where nothing was.
func TestPreload(t *testing.T) {
	store := newPageStore(t)
	size := int64(40 << 30)
	m := New(size, nil, 0, store, 1<<20)
	const regions = 3 * format.DirRegions // of three directories
	for i := range uint64(2 * format.SegPageEntries) {
		seg := format.SegmentEntry{Kind: format.KindLog, Epoch: 1, Seq: i + 1, HeaderLen: 200,
			Size: 1 << 20, Blocks: 2}
		runs := []format.Run{{LBA: i * 7919 % regions * format.RegionBlocks, Count: 2}}
		if err := m.Apply(seg, runs, format.Position{Epoch: 1, Seq: i + 2}); err != nil {
			t.Fatal(err)
		}
	}
	root := store.save(t, m, size, 1)
	m = New(size, root, 0, store, 1<<20)
	runs := []format.Run{{LBA: 0, Count: 1 << 20, Kind: format.RunZero}} // left to the snapshot
	blocks := uint32(0)
	for i := range uint64(8) {
		n := uint64(format.RegionBlocks + 1)
		runs = append(runs, format.Run{LBA: (regions/8*i + 1) * format.RegionBlocks, Count: n})
		blocks += uint32(n)
	}
	runs = append(runs, format.Run{LBA: uint64(size)/format.BlockSize - 1, Count: 1})
	parts := m.Missing(runs)
	if len(parts) != 16 {
		t.Errorf("%d parts are missing, not two of each of eight runs", len(parts))
	}
	if err := m.Preload(t.Context(), parts); err != nil {
		t.Fatal(err)
	}
	if left := m.Missing(runs); len(left) != 0 {
		t.Errorf("missing after a Preload: %v", left)
	}
	store.reads = 0
	seg := format.SegmentEntry{Kind: format.KindLog, Epoch: 2, Seq: 1, HeaderLen: 200,
		Size: 64 << 20, Blocks: blocks + 1}
	if err := m.Apply(seg, runs[1:], format.Position{Epoch: 2, Seq: 2}); err != nil {
		t.Fatal(err)
	}
	if s, ok := m.Snapshot(); !ok {
		t.Errorf("the snapshot needs more pages")
	} else {
		m.Rollback(s)
	}
	if store.reads != 0 {
		t.Errorf("%d pages read", store.reads)
	}
}
