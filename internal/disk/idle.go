package disk

import (
	"context"
	"runtime/debug"
	"time"
)

// idleFrameBytes is what a disk without a cache device keeps of its frames in memory when nobody
// reads.
const idleFrameBytes = 8 << 20

// idleLoop gives memory back when nobody has read or written for a while. A host has many disks
// attached, and most of them are idle at any time. The runtime by itself would collect after two
// minutes, and give back over many more.
func (r *reader) idleLoop(ctx context.Context, after time.Duration) {
	t := time.NewTicker(after)
	defer t.Stop()
	last, given := uint64(0), false
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		n := r.frames.counters
		used := n.frameHits.Load() + n.frameMisses.Load() + n.logObjects.Load()
		if used != last {
			last, given = used, false
			continue
		}
		if !given {
			r.frames.shrink(idleFrameBytes)
			debug.FreeOSMemory()
			given = true
		}
	}
}

// shrink drops what is more than bytes of the frames in memory.
func (f *frames) shrink(bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ram.shrink(bytes)
}
