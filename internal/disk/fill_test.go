package disk

import (
	"path/filepath"
	"testing"

	"github.com/sluice-platform/sluice/internal/disk/cache"
)

// What waits in memory for a cache device that is slower than the disk's user is bounded: the rest
// is not kept.
func TestCacheDeviceThatIsBehindIsPassedBy(t *testing.T) {
	dev, err := cache.Open(filepath.Join(t.TempDir(), "cache"), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	f := &frames{counters: &counters{}, dev: dev}
	kept := 0
	f.fill(maxFilling, func() { // the device takes its time over as much as may wait
		f.fill(1, func() { kept++ })
	})
	if skips := f.counters.cacheSkips.Load(); kept != 0 || skips != 1 {
		t.Errorf("kept %d and skipped %d while the device was behind, want 0 and 1", kept, skips)
	}
	if f.fill(maxFilling, func() { kept++ }); kept != 1 {
		t.Error("nothing is kept after the device caught up")
	}
	if n := f.filling.Load(); n != 0 {
		t.Errorf("%d bytes are said to wait when none do", n)
	}
	f.dev = nil
	f.filling.Store(maxFilling)
	if f.fill(1, func() { kept++ }); kept != 2 {
		t.Error("frames in memory wait for no device")
	}
}
