// Package blockmap is a disk's block map: block → (segment, block in segment), and the table of
// segments.
//
// Invariants:
//
//   - No I/O happens under the map's lock. Pages are read on first touch, or not at all: a change
//     to a region that was not read is kept beside it and laid over its page later.
//   - A snapshot is the map at one log position: regions, live counts and position together.
//   - A segment's live count is the exact number of blocks that the map maps to it. At zero its
//     index is free, because then nothing refers to it.
//   - What is clean can be dropped from memory at any time; what is dirty or in a snapshot can't.
package blockmap

import (
	"context"
	"sync"

	"github.com/sluice-platform/sluice/internal/disk/format"
)

// Source reads map pages. The reference's lineage counts from the map's own disk. It returns the
// page's contents; the caller doesn't change them.
type Source interface {
	ReadPage(ctx context.Context, ref format.PageRef) ([]byte, error)
}

// Piece is a run of blocks that are adjacent on the disk and in one segment. Kind KindFree: zeros.
type Piece struct {
	Block uint64 // on the disk
	Count uint32
	First uint32 // block in the segment
	Seg   format.SegmentEntry
}

// Map is a block map. Safe for concurrent use; Snapshot, Commit and Rollback by one goroutine at a
// time.
type Map struct {
	src    Source
	blocks uint64
	budget int64 // bytes of regions to keep, above what must be kept

	loads loads

	mu      sync.RWMutex
	dirRefs []format.PageRef
	dirs    []*directory
	segs    segTable
	dirty   []uint32 // regions
	pos     format.Position
	mapped  uint64
	bytes   int64
	hand    int
	changed bool // since the last snapshot, also if nothing is dirty
	dropFn  func(seg, n uint32)
}

// dirBytes is what a directory costs in memory, for the budget.
const dirBytes = format.DirRegions * (32 + 8)

// directory holds the references of 1024 region pages, and the regions that are in memory.
type directory struct {
	refs    []format.PageRef // DirRegions; nil until loaded
	regions [format.DirRegions]*region
	loaded  bool
	live    int // regions in memory
}

// New returns the map under root; root is nil for a disk that was never written. distance is how
// far root's disk is up the lineage (0: the disk's own). size is in bytes and at least root's.
// budget is in bytes.
func New(size int64, root *format.Root, distance int, src Source, budget int64) *Map {
	m := &Map{src: src, blocks: uint64(size) / format.BlockSize, budget: budget}
	n := (m.blocks + format.DirBlocks - 1) / format.DirBlocks
	m.dirRefs, m.dirs = make([]format.PageRef, n), make([]*directory, n)
	m.segs = newSegTable(root)
	m.dropFn = m.dropLocked
	if root != nil {
		copy(m.dirRefs, root.Dirs)
		m.mapped = root.Mapped
		shift(m.dirRefs, distance)
		shift(m.segs.refs, distance)
	}
	return m
}

// Grow makes the map one of a larger disk. No snapshot may be under way.
func (m *Map) Grow(size int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blocks = max(m.blocks, uint64(size)/format.BlockSize)
	if more := int((m.blocks+format.DirBlocks-1)/format.DirBlocks) - len(m.dirs); more > 0 {
		m.dirRefs = append(m.dirRefs, make([]format.PageRef, more)...)
		m.dirs = append(m.dirs, make([]*directory, more)...)
	}
}

// shift turns lineage indexes that count from an ancestor into ones that count from this disk.
func shift(refs []format.PageRef, distance int) {
	for i := range refs {
		if refs[i].Length > 0 {
			refs[i].Lineage += uint16(distance)
		}
	}
}

// Begin says up to where the logs are in the map as it is stored.
func (m *Map) Begin(p format.Position) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pos = p
}

// SetPosition says up to where the logs are in the map by now.
func (m *Map) SetPosition(p format.Position) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed = m.changed || p != m.pos
	m.pos = p
}

// Changed reports whether a snapshot now would differ from the last one.
func (m *Map) Changed() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.changed
}

// Mapped returns the number of mapped blocks, exact once every changed region is loaded.
func (m *Map) Mapped() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.mapped
}

// Bytes returns the approximate memory that regions take.
func (m *Map) Bytes() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.bytes
}

func (m *Map) dropLocked(seg, n uint32) {
	m.mapped -= uint64(n)
	m.segs.drop(seg, n)
}

// Apply adds one committed log object: seg describes it, runs are its zero runs followed by its
// data runs, in the order of its blocks, and next is the log position after it. It does no I/O.
// When it fails nothing has changed.
func (m *Map) Apply(seg format.SegmentEntry, runs []format.Run, next format.Position) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var loc format.Loc
	if seg.Blocks > 0 {
		seg.Live = seg.Blocks
		i, err := m.segs.add(seg)
		if err != nil {
			return err
		}
		loc = format.NewLoc(i, 0)
		m.mapped += uint64(seg.Blocks)
	}
	for _, r := range runs {
		if r.Kind == format.RunZero {
			m.zeroLocked(r.LBA, r.Count)
			continue
		}
		m.setLocked(r.LBA, r.Count, loc)
		loc += format.Loc(r.Count)
	}
	m.pos, m.changed = next, true
	return nil
}

func (m *Map) setLocked(block, count uint64, loc format.Loc) {
	for count > 0 {
		start := uint32(block % format.RegionBlocks)
		n := min(count, uint64(format.RegionBlocks-start))
		m.editLocked(block/format.RegionBlocks, format.NewExtent(start, uint32(n), loc))
		block, count, loc = block+n, count-n, loc+format.Loc(n)
	}
}

// zeroLocked unmaps a range. What can't be mapped is skipped a directory or a region at a time.
func (m *Map) zeroLocked(block, count uint64) {
	end := min(block+count, m.blocks)
	for block < end {
		d := block / format.DirBlocks
		if m.dirs[d] == nil && m.dirRefs[d].Length == 0 {
			block = (d + 1) * format.DirBlocks
			continue
		}
		start := uint32(block % format.RegionBlocks)
		n := min(end-block, uint64(format.RegionBlocks-start))
		id := block / format.RegionBlocks
		if dir := m.dirs[d]; dir == nil || !dir.loaded ||
			dir.regions[id%format.DirRegions] != nil ||
			dir.refs[id%format.DirRegions].Length > 0 {
			m.editLocked(id, format.NewExtent(start, uint32(n), 0)|format.ExtentZero)
		}
		block += n
	}
}

func (m *Map) editLocked(id uint64, e format.Extent) {
	r := m.regionLocked(id)
	m.bytes -= r.bytes()
	r.set(e, m.dropFn)
	m.bytes += r.bytes()
	m.touchLocked(uint32(id), r)
}

func (m *Map) touchLocked(id uint32, r *region) {
	if !r.dirty {
		r.dirty = true
		m.dirty = append(m.dirty, id)
	}
}

// regionLocked returns a region, made when it wasn't in memory.
func (m *Map) regionLocked(id uint64) *region {
	dir := m.dirLocked(id / format.DirRegions)
	i := id % format.DirRegions
	if dir.regions[i] == nil {
		r := &region{loaded: dir.loaded && dir.refs[i].Length == 0}
		dir.regions[i] = r
		dir.live++
		m.bytes += r.bytes()
	}
	return dir.regions[i]
}

func (m *Map) dirLocked(d uint64) *directory {
	if m.dirs[d] == nil {
		m.dirs[d] = &directory{}
		m.bytes += dirBytes
		if m.dirRefs[d].Length == 0 {
			m.dirs[d].refs, m.dirs[d].loaded = make([]format.PageRef, format.DirRegions), true
		}
	}
	return m.dirs[d]
}
