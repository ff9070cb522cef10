package blockmap

import (
	"context"
	"sync"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// want names a page that is not in memory.
type want struct {
	kind  uint8 // 'D', 'R' or 'S' as in the stored page; 0: nothing is missing
	index uint32
}

// loads makes concurrent readers of one page share one request.
type loads struct {
	mu      sync.Mutex
	flights map[want]*flight
}

type flight struct {
	done chan struct{}
	err  error
}

// Lookup appends to out the pieces that cover count blocks from block, in order, and reads the
// pages that it needs for that. Blocks past the end of the disk are zeros.
func (m *Map) Lookup(ctx context.Context, block, count uint64, out []Piece) ([]Piece, error) {
	start := len(out)
	for {
		m.mu.RLock()
		res, w := m.lookupLocked(block, count, out[:start])
		m.mu.RUnlock()
		if w.kind == 0 {
			return res, nil
		}
		if err := m.load(ctx, w); err != nil {
			return nil, err
		}
	}
}

func (m *Map) lookupLocked(block, count uint64, out []Piece) ([]Piece, want) {
	end := block + count
	for block < end {
		d := block / format.DirBlocks
		if d >= uint64(len(m.dirs)) {
			return append(out, Piece{Block: block, Count: uint32(end - block)}), want{}
		}
		dir := m.dirs[d]
		if dir == nil && m.dirRefs[d].Length == 0 {
			n := min(end, (d+1)*format.DirBlocks) - block
			out = append(out, Piece{Block: block, Count: uint32(n)})
			block += n
			continue
		}
		if dir == nil {
			return out, want{'D', uint32(d)}
		}
		n := min(end-block, format.RegionBlocks-block%format.RegionBlocks)
		var w want
		if out, w = m.lookupRegionLocked(dir, block, uint32(n), out); w.kind != 0 {
			return out, w
		}
		block += n
	}
	return out, want{}
}

func (m *Map) lookupRegionLocked(dir *directory, block uint64, n uint32,
	out []Piece) ([]Piece, want) {
	id := block / format.RegionBlocks
	r := dir.regions[id%format.DirRegions]
	b := uint32(block % format.RegionBlocks)
	limit := b + n
	base := id * format.RegionBlocks
	for b < limit {
		var e format.Extent
		until, ok := limit, false
		if r != nil {
			e, until, ok = r.next(b, limit)
		}
		switch {
		case ok && !e.IsZero():
			seg, there := m.segs.entry(e.Loc().Segment())
			if !there {
				return out, want{'S', e.Loc().Segment() / format.SegPageEntries}
			}
			out = append(out, Piece{Block: base + uint64(b), Count: until - b,
				First: e.Loc().Block(), Seg: seg})
		case !ok && !dir.loaded:
			return out, want{'D', uint32(id / format.DirRegions)}
		case !ok && (r == nil || !r.loaded) && dir.refs[id%format.DirRegions].Length > 0:
			return out, want{'R', uint32(id)}
		default:
			out = append(out, Piece{Block: base + uint64(b), Count: until - b})
		}
		b = until
	}
	return out, want{}
}

// load reads one page, together with whoever else wants it.
func (m *Map) load(ctx context.Context, w want) error {
	m.loads.mu.Lock()
	if f := m.loads.flights[w]; f != nil {
		m.loads.mu.Unlock()
		select {
		case <-f.done:
			return f.err
		case <-ctx.Done():
			return errs.Wrap(errs.Unavailable, ctx.Err(), "wait for a map page")
		}
	}
	f := &flight{done: make(chan struct{})}
	if m.loads.flights == nil {
		m.loads.flights = make(map[want]*flight)
	}
	m.loads.flights[w] = f
	m.loads.mu.Unlock()

	err := m.fetch(ctx, w)
	m.loads.mu.Lock()
	delete(m.loads.flights, w)
	m.loads.mu.Unlock()
	if ctx.Err() == nil {
		f.err = err // a leader that gave up lets the others try for themselves
	}
	close(f.done)
	return err
}

// fetch reads and installs one page. That it is there already is no error.
func (m *Map) fetch(ctx context.Context, w want) error {
	ref, ok := m.refOf(w)
	if !ok {
		return nil
	}
	page, err := m.src.ReadPage(ctx, ref)
	if err != nil {
		return err
	}
	switch w.kind {
	case 'D':
		refs := make([]format.PageRef, format.DirRegions)
		if err := format.DecodeDirPage(refs, page, w.index); err != nil {
			return err
		}
		shift(refs, int(ref.Lineage))
		m.installDir(w.index, refs)
	case 'R':
		ext, err := format.DecodeRegionPage(make([]format.Extent, 0, len(page)/8), page, w.index)
		if err != nil {
			return err
		}
		m.installRegion(w.index, ref, ext)
	case 'S':
		entries := make([]format.SegmentEntry, format.SegPageEntries)
		if err := format.DecodeSegPage(entries, page, w.index); err != nil {
			return err
		}
		for i := range entries {
			if entries[i].Kind != format.KindFree {
				entries[i].Lineage += ref.Lineage
			}
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.segs.load(w.index, entries)
	}
	return nil
}

// refOf returns where a page is, and false if there is nothing to read any more.
func (m *Map) refOf(w want) (format.PageRef, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	switch w.kind {
	case 'D':
		dir := m.dirs[w.index]
		return m.dirRefs[w.index], dir == nil || !dir.loaded
	case 'S':
		p := m.segs.pages[w.index]
		return m.segs.refs[w.index], p == nil || !p.loaded
	}
	dir := m.dirs[w.index/format.DirRegions]
	if dir == nil || !dir.loaded {
		return format.PageRef{}, false
	}
	i := w.index % format.DirRegions
	r := dir.regions[i]
	return dir.refs[i], dir.refs[i].Length > 0 && (r == nil || !r.loaded)
}

func (m *Map) installDir(d uint32, refs []format.PageRef) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir := m.dirLocked(uint64(d))
	if dir.loaded {
		return
	}
	dir.refs, dir.loaded = refs, true
	for i, r := range dir.regions {
		if r != nil && refs[i].Length == 0 {
			m.bytes -= r.bytes()
			r.load(nil, m.dropFn) // nothing was there: what we hold is all
			m.bytes += r.bytes()
		}
	}
}

// installRegion lays a region over its page, unless a checkpoint or an eviction overtook the read.
func (m *Map) installRegion(id uint32, ref format.PageRef, ext []format.Extent) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir := m.dirs[id/format.DirRegions]
	if dir == nil || !dir.loaded || dir.refs[id%format.DirRegions] != ref {
		return
	}
	r := m.regionLocked(uint64(id))
	if r.loaded {
		return
	}
	m.bytes -= r.bytes()
	r.load(ext, m.dropFn)
	m.bytes += r.bytes()
	m.evictLocked()
}

// evictLocked drops clean regions, going round, until the budget holds with an eighth to spare.
func (m *Map) evictLocked() {
	if m.bytes <= m.budget {
		return
	}
	for range len(m.dirs) {
		d := m.hand
		m.hand = (m.hand + 1) % len(m.dirs)
		dir := m.dirs[d]
		if dir == nil {
			continue
		}
		for i, r := range dir.regions {
			if r != nil && r.loaded && !r.dirty && !r.shared {
				m.bytes -= r.bytes()
				dir.regions[i] = nil
				dir.live--
			}
		}
		if dir.loaded && dir.live == 0 {
			m.bytes -= dirBytes
			m.dirs[d] = nil
		}
		if m.bytes <= m.budget-m.budget/8 {
			return
		}
	}
}
