package disk

import (
	"testing"

	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/disk/format"
)

// oneFrame is what a whole frame counts for.
const oneFrame = format.FrameSize + ramFrameCost

func ramKey(i int) cache.Key { return cache.Key{Seq: uint64(i)} }

// check sees that index, clock and sum agree, and that nothing is over the bound.
func (r *ramFrames) check(t *testing.T, most int64) {
	t.Helper()
	var sum int64
	for e := r.clock.Front(); e != nil; e = e.Next() {
		f := frameOf(e)
		if r.index[f.key] != e {
			t.Errorf("the index has something else for %v", f.key)
		}
		sum += f.size()
	}
	if r.clock.Len() != len(r.index) || sum != r.bytes || sum > most {
		t.Errorf("%d frames of %d bytes, index of %d, sum %d, most %d", r.clock.Len(), sum,
			len(r.index), r.bytes, most)
	}
}

// TestRAMFramesShrink sees that what is asked for survives, and that the cache grows again.
func TestRAMFramesShrink(t *testing.T) {
	const most, least = 64 * oneFrame, 20 * oneFrame
	r := newRAMFrames(most)
	content := make([]byte, format.FrameSize)
	for i := range 64 + 10 {
		r.put(ramKey(i), content)
	}
	r.check(t, most)
	hot := []int{12, 40, 73}
	for _, i := range hot {
		if r.get(ramKey(i)) == nil {
			t.Fatalf("frame %d is gone before", i)
		}
	}
	r.shrink(least)
	r.check(t, least)
	for _, i := range hot {
		if r.get(ramKey(i)) == nil {
			t.Errorf("frame %d was in use and is gone", i)
		}
	}
	for i := range 3 * 64 {
		r.put(ramKey(1000+i), content)
	}
	r.check(t, most)
	if n := r.clock.Len(); n != 64 {
		t.Errorf("%d frames after it was filled again", n)
	}
}

// TestRAMFramesCountBytes: as many small frames fit as their bytes allow.
func TestRAMFramesCountBytes(t *testing.T) {
	const most = 1 << 20
	r := newRAMFrames(most)
	for i := range 1000 {
		r.put(ramKey(i), make([]byte, BlockSize))
	}
	r.check(t, most)
	if n, want := r.clock.Len(), most/(BlockSize+ramFrameCost); n != want {
		t.Errorf("%d frames of a block each, want %d", n, want)
	}
	r.put(ramKey(7777), make([]byte, 2*most))
	if r.get(ramKey(7777)) == nil || r.clock.Len() != 1 {
		t.Errorf("a frame larger than all was not kept, alone: %d frames", r.clock.Len())
	}
}

// TestRAMFramesKeepTheNewest: also when all others were asked for again, as where somebody reads a
// few frames all the time. The next reader of what has just come in would ask the store again.
func TestRAMFramesKeepTheNewest(t *testing.T) {
	const most = 8 * oneFrame
	r := newRAMFrames(most)
	content := make([]byte, format.FrameSize)
	for i := range 100 {
		r.put(ramKey(i), content)
		r.check(t, most)
		for k := range r.index {
			r.get(k)
		}
		if r.get(ramKey(i)) == nil {
			t.Fatalf("frame %d was dropped when it came in", i)
		}
	}
	r.put(ramKey(99), make([]byte, BlockSize)) // again, with other content
	r.check(t, most)
	if n := len(r.get(ramKey(99))); n != BlockSize {
		t.Errorf("it has %d bytes", n)
	}
}
