package disk

import (
	"context"
	"time"
)

// idleFrameBytes is what a disk without a cache device keeps of its frames in memory when nobody reads.
const idleFrameBytes = 8 << 20

// idleLoop gives back the memory of frames that nobody reads any more: a host has many disks attached, and most
// of them do nothing at a time.
func (r *reader) idleLoop(ctx context.Context, after time.Duration) {
	t := time.NewTicker(after)
	defer t.Stop()
	var last uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		n := &r.frames.o.n
		used := n.frameHits.Load() + n.frameMisses.Load() + n.logObjects.Load()
		if used == last {
			r.frames.shrink(idleFrameBytes)
		}
		last = used
	}
}

// shrink drops what is more than bytes of the frames in memory.
func (f *frames) shrink(bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ram.shrink(bytes)
}
