package blockmap

import (
	"slices"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// segPage is 1024 entries of the segment table. One that is not loaded holds only the entries added
// since attach, and the changes of live counts that its page doesn't know yet.
type segPage struct {
	entries []format.SegmentEntry // SegPageEntries of them
	delta   map[uint32]int32      // by index in the page, until it is loaded
	loaded  bool
	dirty   bool
	shared  bool
}

func (p *segPage) own() {
	if p.shared {
		p.entries, p.shared = append([]format.SegmentEntry(nil), p.entries...), false
	}
}

// segTable is the segment table. The map's lock guards it.
type segTable struct {
	refs  []format.PageRef
	pages []*segPage
	next  uint32   // first index never used
	base  uint32   // next as it was in the root: stored pages know only indexes below
	free  []uint32 // indexes that can be used again
	dirty []uint32 // pages
}

func newSegTable(root *format.Root) segTable {
	t := segTable{next: 1}
	if root != nil {
		t.refs, t.next = slices.Clone(root.Segs), max(1, root.NextSeg)
		t.base = t.next
	}
	t.pages = make([]*segPage, len(t.refs))
	return t
}

// page returns a page, made when it wasn't there.
func (t *segTable) page(i uint32) *segPage {
	for int(i) >= len(t.pages) {
		t.pages, t.refs = append(t.pages, nil), append(t.refs, format.PageRef{})
	}
	if t.pages[i] == nil {
		t.pages[i] = &segPage{entries: make([]format.SegmentEntry, format.SegPageEntries),
			loaded: t.refs[i].Length == 0}
	}
	return t.pages[i]
}

func (t *segTable) touch(i uint32) *segPage {
	p := t.page(i)
	p.own()
	if !p.dirty {
		p.dirty = true
		t.dirty = append(t.dirty, i)
	}
	return p
}

// add gives a segment an index.
func (t *segTable) add(e format.SegmentEntry) (uint32, error) {
	var seg uint32
	switch {
	case len(t.free) > 0:
		seg = t.free[len(t.free)-1]
		t.free = t.free[:len(t.free)-1]
	case t.next < format.MaxSegments:
		seg = t.next
		t.next++
	default:
		return 0, errs.New(errs.Exhausted, "the disk has %d live segments", format.MaxSegments).
			WithRemedy("compact it")
	}
	t.touch(seg / format.SegPageEntries).entries[seg%format.SegPageEntries] = e
	return seg, nil
}

// drop takes n live blocks from a segment. One without live blocks is forgotten and its index
// reused.
func (t *segTable) drop(seg, n uint32) {
	p := t.touch(seg / format.SegPageEntries)
	i := seg % format.SegPageEntries
	if p.entries[i].Kind == format.KindFree && !p.loaded {
		if p.delta == nil {
			p.delta = make(map[uint32]int32)
		}
		p.delta[i] -= int32(n)
		return
	}
	if p.entries[i].Live < n {
		panic("blockmap: live count of a segment below zero")
	}
	p.entries[i].Live -= n
	t.freeIfDead(p, seg)
}

func (t *segTable) freeIfDead(p *segPage, seg uint32) {
	if i := seg % format.SegPageEntries; p.entries[i].Live == 0 {
		p.entries[i] = format.SegmentEntry{}
		t.free = append(t.free, seg)
	}
}

// entry returns a segment's entry; ok=false if its page must be loaded first.
func (t *segTable) entry(seg uint32) (e format.SegmentEntry, ok bool) {
	i := seg / format.SegPageEntries
	if int(i) >= len(t.pages) {
		return e, true
	}
	if p := t.pages[i]; p != nil {
		e = p.entries[seg%format.SegPageEntries]
		return e, p.loaded || e.Kind != format.KindFree
	}
	return e, t.refs[i].Length == 0
}

// absent reports whether page i is stored and not in memory.
func (t *segTable) absent(i uint32) bool {
	return int(i) < len(t.pages) && t.refs[i].Length > 0 &&
		(t.pages[i] == nil || !t.pages[i].loaded)
}

// load merges the stored entries of page i, whose lineage already counts from this disk.
func (t *segTable) load(i uint32, base []format.SegmentEntry) error {
	p := t.page(i)
	if p.loaded {
		return nil
	}
	p.own()
	for j := range base {
		seg := i*format.SegPageEntries + uint32(j)
		if p.entries[j].Kind != format.KindFree {
			continue
		}
		if base[j].Kind == format.KindFree {
			if seg > 0 && seg < t.base {
				t.free = append(t.free, seg)
			}
			continue
		}
		live := int64(base[j].Live) + int64(p.delta[uint32(j)])
		if live < 0 {
			return errs.New(errs.Corrupt, "segment %d has fewer live blocks than the map refers to",
				seg)
		}
		p.entries[j] = base[j]
		p.entries[j].Live = uint32(live)
		if live == 0 && base[j].Live > 0 {
			t.freeIfDead(p, seg)
		}
	}
	p.delta, p.loaded = nil, true
	return nil
}
