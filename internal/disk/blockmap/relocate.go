package blockmap

import (
	"context"

	"github.com/sluice-platform/sluice/internal/disk/format"
)

// relocateTries bounds how often Relocate reads pages that an eviction took away again.
const relocateTries = 4

// Segment is an entry of the segment table with its index. The index alone names no segment: it is
// reused when the segment is dead.
type Segment struct {
	Index uint32
	Entry format.SegmentEntry
}

// Move says that Count blocks of the disk from Block on were copied from block First of a segment
// on.
type Move struct {
	Block uint64
	Count uint32
	First uint32
	From  Segment
}

// Segments returns the segments that are in memory: with a LoadSegments before it, all; without,
// those that this session added to or took from.
func (m *Map) Segments() []Segment {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var all []Segment
	for i, p := range m.segs.pages {
		if p == nil {
			continue
		}
		for j := range p.entries {
			if p.entries[j].Kind != format.KindFree {
				all = append(all, Segment{Index: uint32(i*format.SegPageEntries + j),
					Entry: p.entries[j]})
			}
		}
	}
	return all
}

// LoadSegments reads the whole segment table, 48 bytes a segment.
func (m *Map) LoadSegments(ctx context.Context) error {
	m.mu.RLock()
	n := len(m.segs.pages)
	m.mu.RUnlock()
	for i := range n {
		if err := m.load(ctx, want{'S', uint32(i)}); err != nil {
			return err
		}
	}
	return nil
}

// Relocate maps blocks to the copies that seg holds of them, in the order of moves, and returns how
// many. It is a compare-and-set for each block: one that was written, trimmed or moved since it was
// copied stays as it is. All that it does becomes visible at once, and durable with the next
// snapshot. Blocks whose pages don't stay in memory are left where they are.
func (m *Map) Relocate(ctx context.Context, seg format.SegmentEntry, moves []Move) (uint32, error) {
	for try := 0; ; try++ {
		wants := m.relocateWants(moves)
		for _, w := range wants {
			if err := m.load(ctx, w); err != nil {
				return 0, err
			}
		}
		if n, complete, err := m.relocate(seg, moves, try == relocateTries); complete ||
			err != nil {
			return n, err
		}
	}
}

// relocateWants returns the pages to read before moves can be checked; regions only where the
// directory is known, so that it takes a second call to have them all.
func (m *Map) relocateWants(moves []Move) []want {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var wants []want
	seen := make(map[want]bool)
	for i := range moves {
		if _, w := m.checkMoveLocked(&moves[i], nil); w.kind != 0 && !seen[w] {
			seen[w] = true
			wants = append(wants, w)
		}
	}
	return wants
}

// kept is a part of a move that still holds, and where its copy is.
type kept struct {
	block uint64
	count uint32
	to    uint32 // block in the new segment
}

// relocate does it if all pages are there, or with what is there if it must.
func (m *Map) relocate(seg format.SegmentEntry, moves []Move, must bool) (uint32, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []kept
	var at, live uint32
	for i := range moves {
		parts, w := m.checkMoveLocked(&moves[i], nil)
		if w.kind != 0 && !must {
			return 0, false, nil
		}
		if w.kind == 0 {
			for _, p := range parts {
				p.to += at
				all = append(all, p)
				live += p.count
			}
		}
		at += moves[i].Count
	}
	if live == 0 {
		return 0, true, nil
	}
	seg.Live = live
	index, err := m.segs.add(seg)
	if err != nil {
		return 0, false, err
	}
	m.changed = true
	m.mapped += uint64(live) // the blocks' old places take it off again
	for _, p := range all {
		m.setLocked(p.block, uint64(p.count), format.NewLoc(index, p.to))
	}
	return live, true, nil
}

// checkMoveLocked appends to out the parts of a move whose blocks are still where they were copied
// from. That takes the segment to be the same one: its index may have gone to another since.
func (m *Map) checkMoveLocked(v *Move, out []kept) ([]kept, want) {
	e, there := m.segs.entry(v.From.Index)
	if !there {
		return out, want{'S', v.From.Index / format.SegPageEntries}
	}
	if !sameSegment(&e, &v.From.Entry) {
		return out, want{}
	}
	end := v.Block + uint64(v.Count)
	for block := v.Block; block < end; {
		n := min(end-block, format.RegionBlocks-block%format.RegionBlocks)
		r, w := m.wholeRegionLocked(block)
		if w.kind != 0 {
			return out, w
		}
		if r != nil {
			out = r.appendKept(out, v, block, uint32(n))
		}
		block += n
	}
	return out, want{}
}

// wholeRegionLocked returns all that there is of a block's region: nil if nothing is, or what must
// be read before that is known.
func (m *Map) wholeRegionLocked(block uint64) (*region, want) {
	d, id := block/format.DirBlocks, block/format.RegionBlocks
	dir := m.dirs[d]
	switch {
	case dir == nil && m.dirRefs[d].Length == 0:
		return nil, want{}
	case dir == nil || !dir.loaded:
		return nil, want{'D', uint32(d)}
	}
	r := dir.regions[id%format.DirRegions]
	if (r == nil || !r.loaded) && dir.refs[id%format.DirRegions].Length > 0 {
		return nil, want{'R', uint32(id)}
	}
	return r, want{}
}

// appendKept appends the parts of [block, block+n), within a region that is loaded, that v still
// describes.
func (r *region) appendKept(out []kept, v *Move, block uint64, n uint32) []kept {
	base := block - block%format.RegionBlocks
	b := uint32(block % format.RegionBlocks)
	for limit := b + n; b < limit; {
		e, until, ok := r.next(b, limit)
		at := base + uint64(b)
		offset := uint32(at - v.Block)
		if ok && !e.IsZero() && e.Loc() == format.NewLoc(v.From.Index, v.First+offset) {
			out = append(out, kept{block: at, count: until - b, to: offset})
		}
		b = until
	}
	return out
}

// sameSegment reports whether two entries are of one object, whatever their live counts.
func sameSegment(a, b *format.SegmentEntry) bool {
	return a.Kind == b.Kind && a.Lineage == b.Lineage && a.Epoch == b.Epoch && a.Seq == b.Seq
}
