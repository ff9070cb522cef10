package blockmap

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/disk/format"
)

// maxParallelLoads bounds the page reads that completing the map for a snapshot makes at a time.
const maxParallelLoads = 16

// Snapshot is the map at one log position, with the pages that differ from the last committed one.
type Snapshot struct {
	Position format.Position
	regions  []snapRegion
	segs     []snapSegs
	nextSeg  uint32
	mapped   uint64
	dirRefs  []format.PageRef // copies, with the new references once encoded
	segRefs  []format.PageRef
}

type snapRegion struct {
	id         uint32
	ext, dense []format.Extent
	ref        format.PageRef
}

type snapSegs struct {
	page    uint32
	entries []format.SegmentEntry
}

// Version names the checkpoint that a snapshot is written as.
type Version struct {
	Epoch uint64
	N     uint32
	Nonce format.ID
	Key   *format.PageKey // nil on a disk in the clear
}

// Complete reads the pages below everything that changed, so that a snapshot can be taken. Changes
// that come meanwhile may leave more to read; then Snapshot says so.
func (m *Map) Complete(ctx context.Context) error {
	for {
		wants := m.incomplete()
		if len(wants) == 0 {
			return nil
		}
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(maxParallelLoads)
		for _, w := range wants {
			g.Go(func() error { return m.load(gctx, w) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
}

func (m *Map) incomplete() []want {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.incompleteLocked(-1)
}

// incompleteLocked returns the missing pages; directories come first, because they tell which
// regions there are. It stops at limit unless that is negative.
func (m *Map) incompleteLocked(limit int) []want {
	var wants []want
	last := uint32(1<<32 - 1)
	for _, id := range m.dirty {
		d := id / format.DirRegions
		dir := m.dirs[d]
		switch r := dir.regions[id%format.DirRegions]; {
		case !dir.loaded && d != last:
			wants, last = append(wants, want{'D', d}), d
		case dir.loaded && !r.loaded:
			wants = append(wants, want{'R', id})
		}
		if len(wants) == limit {
			return wants
		}
	}
	for _, p := range m.segs.dirty {
		if !m.segs.pages[p].loaded {
			wants = append(wants, want{'S', p})
		}
	}
	return wants
}

// Snapshot freezes what changed. It returns false when more pages must be read (Complete) first.
func (m *Map) Snapshot() (*Snapshot, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.incompleteLocked(1)) > 0 {
		return nil, false
	}
	s := &Snapshot{Position: m.pos, nextSeg: m.segs.next, mapped: m.mapped,
		dirRefs: append([]format.PageRef(nil), m.dirRefs...),
		segRefs: append([]format.PageRef(nil), m.segs.refs...)}
	for _, id := range m.dirty {
		r := m.dirs[id/format.DirRegions].regions[id%format.DirRegions]
		r.dirty, r.shared = false, true
		s.regions = append(s.regions, snapRegion{id: id, ext: r.ext, dense: r.dense})
	}
	for _, i := range m.segs.dirty {
		p := m.segs.pages[i]
		p.dirty, p.shared = false, true
		s.segs = append(s.segs, snapSegs{page: i, entries: p.entries})
	}
	m.dirty, m.segs.dirty, m.changed = nil, nil, false
	return s, true
}

// Empty reports whether no page changed: the root of before still holds.
func (s *Snapshot) Empty() bool { return len(s.regions) == 0 && len(s.segs) == 0 }

// Encode returns the pages object and the root of a snapshot that is not Empty. The root lacks what
// the map doesn't know: size, lineage and time.
func (m *Map) Encode(s *Snapshot, c *format.Codec, v Version) ([]byte, *format.Root) {
	object := make([]byte, format.PagesHeaderLen)
	var page []byte
	count := 0
	store := func() format.PageRef {
		var ref format.PageRef
		object, ref = c.AppendStored(object, page, v.Key)
		ref.Epoch, ref.N = v.Epoch, v.N
		count++
		return ref
	}
	var ext []format.Extent
	dirs := make(map[uint32][]format.PageRef)
	for i := range s.regions {
		r := &s.regions[i]
		if ext = appendExtents(ext[:0], r.ext, r.dense); len(ext) > 0 {
			page = format.AppendRegionPage(page[:0], r.id, ext)
			r.ref = store()
		}
		d := r.id / format.DirRegions
		if dirs[d] == nil {
			// Only Commit changes the references of a directory with a region in a snapshot, and it
			// runs after us.
			dirs[d] = append([]format.PageRef(nil), m.dirs[d].refs...)
		}
		dirs[d][r.id%format.DirRegions] = r.ref
	}
	for d, refs := range dirs {
		s.dirRefs[d] = format.PageRef{}
		for i := range refs {
			if refs[i].Length > 0 {
				page = format.AppendDirPage(page[:0], d, refs)
				s.dirRefs[d] = store()
				break
			}
		}
	}
	for _, p := range s.segs {
		page = format.AppendSegPage(page[:0], p.page, p.entries)
		s.segRefs[p.page] = store()
	}
	format.PutPagesHeader(object, v.Nonce, count)
	return object, &format.Root{Nonce: v.Nonce, Epoch: v.Epoch, N: v.N, Position: s.Position,
		NextSeg: s.nextSeg, Mapped: s.mapped, Dirs: s.dirRefs, Segs: s.segRefs}
}

// Commit makes an encoded snapshot the state that clean pages are read from.
func (m *Map) Commit(s *Snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.Empty() {
		return
	}
	copy(m.dirRefs, s.dirRefs)
	copy(m.segs.refs, s.segRefs)
	for i := range s.regions {
		id := s.regions[i].id
		dir := m.dirs[id/format.DirRegions]
		dir.refs[id%format.DirRegions] = s.regions[i].ref
		dir.regions[id%format.DirRegions].shared = false
	}
	for i := range s.segs {
		m.segs.pages[s.segs[i].page].shared = false
	}
	m.evictLocked()
}

// Rollback marks what a snapshot held as changed again, after it could not be written.
func (m *Map) Rollback(s *Snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed = true
	for i := range s.regions {
		id := s.regions[i].id
		r := m.dirs[id/format.DirRegions].regions[id%format.DirRegions]
		r.shared = false
		m.touchLocked(id, r)
	}
	for i := range s.segs {
		m.segs.pages[s.segs[i].page].shared = false
		m.segs.touch(s.segs[i].page)
	}
}
