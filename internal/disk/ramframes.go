package disk

import (
	"container/list"

	"github.com/sluice-platform/sluice/internal/disk/cache"
)

// ramFrameCost is about what a frame takes in memory beside its content.
const ramFrameCost = 256

// ramFrames is a small in-memory frame cache: a clock over as many frames as fit into a number of
// bytes. Frames of a file that grew by small fsyncs have one block each, so their number says
// nothing. The owner's lock guards it.
type ramFrames struct {
	index map[cache.Key]*list.Element
	clock *list.List // of *ramFrame; the front is looked at next
	bytes int64
	most  int64
}

type ramFrame struct {
	key  cache.Key
	data []byte
	hot  bool // asked for since it was last looked at
}

func (f *ramFrame) size() int64 { return int64(cap(f.data)) + ramFrameCost }

func newRAMFrames(bytes int64) ramFrames {
	return ramFrames{index: make(map[cache.Key]*list.Element), clock: list.New(), most: bytes}
}

// get returns a frame's content or nil. It must not be changed.
func (r *ramFrames) get(k cache.Key) []byte {
	e, ok := r.index[k]
	if !ok {
		return nil
	}
	f := frameOf(e)
	f.hot = true
	return f.data
}

// put keeps data, which must not be changed any more. The newest frame is kept whatever its size,
// and whatever else was asked for: room is made before it comes in.
func (r *ramFrames) put(k cache.Key, data []byte) {
	f := &ramFrame{key: k, data: data}
	if e, ok := r.index[k]; ok {
		f.hot = frameOf(e).hot
		r.drop(e)
	}
	r.shrink(r.most - f.size())
	r.index[k] = r.clock.PushBack(f)
	r.bytes += f.size()
}

// shrink drops what is more than bytes, first what was not asked for again. The cache may grow
// again.
func (r *ramFrames) shrink(bytes int64) {
	for r.bytes > max(0, bytes) {
		e := r.clock.Front()
		if f := frameOf(e); f.hot {
			f.hot = false
			r.clock.MoveToBack(e)
			continue
		}
		r.drop(e)
	}
}

func (r *ramFrames) drop(e *list.Element) {
	f := frameOf(e)
	r.clock.Remove(e)
	delete(r.index, f.key)
	r.bytes -= f.size()
}

func frameOf(e *list.Element) *ramFrame {
	f, _ := e.Value.(*ramFrame) // nothing else is put there
	return f
}
