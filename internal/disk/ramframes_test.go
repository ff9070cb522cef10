package disk

import (
	"testing"

	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/disk/format"
)

// TestRAMFramesShrink sees that what is asked for survives, that the index agrees with the ring,
// and that the cache grows again.
func TestRAMFramesShrink(t *testing.T) {
	const most, least = 64, 20
	r := newRAMFrames(most * format.FrameSize)
	key := func(i int) cache.Key { return cache.Key{Seq: uint64(i)} }
	for i := range most + 10 {
		r.put(key(i), []byte{byte(i)})
	}
	hot := []int{12, 40, 73}
	for _, i := range hot {
		if r.get(key(i)) == nil {
			t.Fatalf("frame %d is gone before", i)
		}
	}
	r.shrink(least * format.FrameSize)
	if len(r.ring) != least || len(r.index) != least {
		t.Fatalf("%d frames, %d in the index", len(r.ring), len(r.index))
	}
	for _, i := range hot {
		if r.get(key(i)) == nil {
			t.Errorf("frame %d was in use and is gone", i)
		}
	}
	for i := range 3 * most {
		r.put(key(1000+i), []byte{byte(i)})
	}
	if len(r.ring) != most || len(r.index) != most {
		t.Errorf("%d frames, %d in the index after it was filled again", len(r.ring), len(r.index))
	}
	for k, i := range r.index {
		if r.ring[i].key != k {
			t.Errorf("the index has %v where %v is", k, r.ring[i].key)
		}
	}
}
