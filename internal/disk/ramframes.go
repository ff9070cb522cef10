package disk

import (
	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/disk/format"
)

// ramFrames is a small in-memory frame cache: a clock over a fixed number of frames. The owner's
// lock guards it.
type ramFrames struct {
	index map[cache.Key]int
	ring  []ramFrame
	size  int
	hand  int
}

type ramFrame struct {
	key  cache.Key
	data []byte
	hot  bool
}

func newRAMFrames(bytes int64) ramFrames {
	n := max(16, int(bytes/format.FrameSize))
	return ramFrames{index: make(map[cache.Key]int), size: n}
}

// get returns a frame's content or nil. It must not be changed.
func (r *ramFrames) get(k cache.Key) []byte {
	i, ok := r.index[k]
	if !ok {
		return nil
	}
	r.ring[i].hot = true
	return r.ring[i].data
}

// put keeps data, which must not be changed any more.
func (r *ramFrames) put(k cache.Key, data []byte) {
	if i, ok := r.index[k]; ok {
		r.ring[i].data = data
		return
	}
	if len(r.ring) < r.size {
		r.index[k] = len(r.ring)
		r.ring = append(r.ring, ramFrame{key: k, data: data})
		return
	}
	for r.ring[r.hand].hot {
		r.ring[r.hand].hot = false
		r.hand = (r.hand + 1) % r.size
	}
	delete(r.index, r.ring[r.hand].key)
	r.ring[r.hand] = ramFrame{key: k, data: data}
	r.index[k] = r.hand
	r.hand = (r.hand + 1) % r.size
}

// shrink drops what is more than bytes, first what was not asked for again. The cache may grow
// again.
func (r *ramFrames) shrink(bytes int64) {
	n := max(16, int(bytes/format.FrameSize))
	if len(r.ring) <= n {
		return
	}
	keep := make([]ramFrame, 0, n)
	for _, hot := range []bool{true, false} {
		for _, fr := range r.ring {
			if fr.hot == hot && len(keep) < n {
				keep = append(keep, fr)
			}
		}
	}
	r.ring, r.hand = keep, 0
	r.index = make(map[cache.Key]int, n)
	for i := range r.ring {
		r.index[r.ring[i].key] = i
	}
}
