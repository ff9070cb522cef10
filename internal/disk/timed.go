package disk

import "time"

// Parts of an attach and of a close, as AttachOptions.Timed is told of them.
const (
	partReadHead = "read head"
	partSwapHead = "swap head"  // beside it, the map root is read
	partReplay   = "replay log" // after a crash
	partFence    = "write fence"
	partFlush    = "flush"
	partWriteMap = "write map" // and mark the head closed
)

// timed tells of a part that has just ended.
func (d *Disk) timed(part, of string, began time.Time) {
	if d.opts.Timed != nil {
		d.opts.Timed(part, of, began)
	}
}
