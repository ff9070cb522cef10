package blockmap

import (
	"slices"

	"github.com/sluice-platform/sluice/internal/disk/format"
)

// maxExtents is how fragmented a region gets before it becomes an array of 1024 words. Editing a
// list this long costs about as much as it saves.
const maxExtents = 256

// regionOverhead is what a region costs beside its words, in bytes, for the memory budget.
const regionOverhead = 96

// region maps the 1024 blocks of 4 MiB. It holds either sorted extents or, when fragmented, one
// word per block. A region that is not loaded holds only what changed since attach, with marks for
// zeros, and is laid over its page when that is read.
type region struct {
	ext    []format.Extent
	dense  []format.Extent // 0, or the extent of one block; nil while ext is in use
	loaded bool
	dirty  bool
	shared bool // a snapshot reads the slices: clone before a change, and don't evict
}

func (r *region) bytes() int64 { return regionOverhead + 8*int64(cap(r.ext)+cap(r.dense)) }

// own makes the slices the region's own again before a change.
func (r *region) own() {
	if r.shared {
		r.ext, r.dense, r.shared = slices.Clone(r.ext), slices.Clone(r.dense), false
	}
}

// set maps e's blocks and tells drop how many blocks of which segment it hid. In a loaded region a
// zero mark just unmaps.
func (r *region) set(e format.Extent, drop func(seg, n uint32)) {
	r.own()
	if r.dense != nil {
		r.setDense(e, drop)
		return
	}
	from, to := e.Start(), e.End()
	i := r.find(from)
	j := i
	var keep [3]format.Extent
	k := keep[:0]
	if i < len(r.ext) && r.ext[i].Start() < from {
		k = append(k, r.ext[i].Slice(r.ext[i].Start(), from))
	}
	if !e.IsZero() || !r.loaded {
		if len(k) > 0 && k[0].Joins(e) {
			k[0] = merge(k[0], e)
		} else {
			k = append(k, e)
		}
	}
	for ; j < len(r.ext) && r.ext[j].Start() < to; j++ {
		old := r.ext[j]
		if !old.IsZero() {
			drop(old.Loc().Segment(), min(to, old.End())-max(from, old.Start()))
		}
		if old.End() > to {
			k = append(k, old.Slice(to, old.End()))
		}
	}
	i, j, k = r.joinNeighbours(i, j, k)
	r.ext = slices.Replace(r.ext, i, j, k...)
	if len(r.ext) > maxExtents {
		r.densify()
	}
}

// joinNeighbours widens the replaced range [i, j) where k's ends continue what is beside it.
func (r *region) joinNeighbours(i, j int, k []format.Extent) (int, int, []format.Extent) {
	if len(k) == 0 {
		return i, j, k
	}
	if i > 0 && r.ext[i-1].Joins(k[0]) {
		k[0] = merge(r.ext[i-1], k[0])
		i--
	}
	if last := len(k) - 1; j < len(r.ext) && k[last].Joins(r.ext[j]) {
		k[last] = merge(k[last], r.ext[j])
		j++
	}
	return i, j, k
}

func merge(a, b format.Extent) format.Extent {
	return format.NewExtent(a.Start(), a.Count()+b.Count(), a.Loc()) | a&format.ExtentZero
}

// find returns the index of the first extent that ends after block.
func (r *region) find(block uint32) int {
	lo, hi := 0, len(r.ext)
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if r.ext[mid].End() > block {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

func (r *region) setDense(e format.Extent, drop func(seg, n uint32)) {
	for b := e.Start(); b < e.End(); b++ {
		if old := r.dense[b]; old != 0 && !old.IsZero() {
			drop(old.Loc().Segment(), 1)
		}
		if e.IsZero() && r.loaded {
			r.dense[b] = 0
		} else {
			r.dense[b] = e.Slice(b, b+1)
		}
	}
}

func (r *region) densify() {
	r.dense = make([]format.Extent, format.RegionBlocks)
	for _, e := range r.ext {
		for b := e.Start(); b < e.End(); b++ {
			r.dense[b] = e.Slice(b, b+1)
		}
	}
	r.ext = nil
}

// extents appends the region's extents to dst, joined where they can be.
func (r *region) extents(dst []format.Extent) []format.Extent {
	return appendExtents(dst, r.ext, r.dense)
}

func appendExtents(dst, ext, dense []format.Extent) []format.Extent {
	if dense == nil {
		return append(dst, ext...)
	}
	start := len(dst)
	for _, e := range dense {
		switch {
		case e == 0:
		case len(dst) > start && dst[len(dst)-1].Joins(e):
			dst[len(dst)-1] = merge(dst[len(dst)-1], e)
		default:
			dst = append(dst, e)
		}
	}
	return dst
}

// next returns the mapping at block: the extent that covers it, cut to begin there and to end by
// limit, or ok=false and where the next extent begins (at most limit).
func (r *region) next(block, limit uint32) (e format.Extent, until uint32, ok bool) {
	if r.dense == nil {
		i := r.find(block)
		if i == len(r.ext) || r.ext[i].Start() >= limit {
			return 0, limit, false
		}
		if e = r.ext[i]; e.Start() > block {
			return 0, e.Start(), false
		}
		until = min(e.End(), limit)
		return e.Slice(block, until), until, true
	}
	until = block + 1
	if e = r.dense[block]; e == 0 {
		for until < limit && r.dense[until] == 0 {
			until++
		}
		return 0, until, false
	}
	for until < limit && r.dense[until] != 0 && e.Joins(r.dense[until]) {
		e = merge(e, r.dense[until])
		until++
	}
	return e, until, true
}

// load lays what the region holds over its page and makes it whole.
func (r *region) load(base []format.Extent, drop func(seg, n uint32)) {
	patch := r.extents(nil)
	r.ext, r.dense, r.shared, r.loaded = slices.Clone(base), nil, false, true
	if len(r.ext) > maxExtents {
		r.densify()
	}
	for _, e := range patch {
		r.set(e, drop)
	}
}
