package cache

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// clock is the peer: one bit a slot, a hand that goes round.
type clock struct {
	index map[int]int
	keys  []int
	hot   []bool
	hand  int
}

func (c *clock) get(k int) bool {
	if i, ok := c.index[k]; ok {
		c.hot[i] = true
		return true
	}
	for c.hot[c.hand] {
		c.hot[c.hand] = false
		c.hand = (c.hand + 1) % len(c.keys)
	}
	delete(c.index, c.keys[c.hand])
	c.index[k], c.keys[c.hand] = c.hand, k
	c.hand = (c.hand + 1) % len(c.keys)
	return false
}

// TestHitRatio compares with a clock of the same size: a skewed load with a scan of twice the
// cache, by small steps, again and again.
func TestHitRatio(t *testing.T) {
	const slots, frames, rounds = 512, 4096, 12
	c, _ := open(t, slots*SlotSize)
	peer := &clock{index: map[int]int{}, keys: make([]int, slots), hot: make([]bool, slots)}
	for i := range peer.keys {
		peer.keys[i] = -1 - i
	}
	rng := rand.New(rand.NewPCG(3, 3))
	zipf := rand.NewZipf(rng, 1.1, 8, frames-1)
	p, full := make([]byte, BlockSize), content(1, SlotBlocks)
	get := func(k, block int) bool {
		if c.ReadAt(key(k), p, block) {
			return true
		}
		c.Insert(key(k), full)
		return false
	}
	var reads, ours, theirs int
	for range rounds {
		for range 4000 {
			k := int(zipf.Uint64())
			reads++
			if get(k, rng.IntN(SlotBlocks)) {
				ours++
			}
			if peer.get(k) {
				theirs++
			}
		}
		for k := frames; k < frames+2*slots; k++ { // what a scan hits counts for nobody
			for b := range SlotBlocks {
				get(k, b)
				peer.get(k)
			}
		}
	}
	ratio := func(n int) float64 { return 100 * float64(n) / float64(reads) }
	t.Logf("hit ratio of the skewed load beside scans: %.1f %%, of a clock %.1f %%", ratio(ours),
		ratio(theirs))
	if ratio(ours) < ratio(theirs)+5 {
		t.Errorf("no better than a clock: %.1f and %.1f %%", ratio(ours), ratio(theirs))
	}
}

// TestAHotSetSurvivesAScan reads a hot set a few times, then ten times the cache once, and then
// looks.
func TestAHotSetSurvivesAScan(t *testing.T) {
	const slots, hot = 200, 100
	c, _ := open(t, slots*SlotSize)
	p, full := make([]byte, BlockSize), content(1, SlotBlocks)
	for range 4 {
		for k := range hot {
			if !c.ReadAt(key(k), p, 0) {
				c.Insert(key(k), full)
			}
		}
	}
	for k := 1000; k < 1000+10*slots; k++ {
		c.Insert(key(k), full)
		for b := range SlotBlocks {
			c.ReadAt(key(k), p, b)
		}
	}
	lost := 0
	for k := range hot {
		if !c.Contains(key(k)) {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("a scan evicted %d of %d hot frames", lost, hot)
	}
	if s := c.Stats(); s.Used != slots || c.small.n+c.main.n != slots {
		t.Errorf("%+v, %d and %d queued", s, c.small.n, c.main.n)
	}
}

// TestAFullFileSystem lets writes fail for lack of space: frames are not kept, and nothing else
// happens.
func TestAFullFileSystem(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	c, err := Open(filepath.Join(dir, "cache"), 64*SlotSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	checkChurn(t, c, 64)
	if s := c.Stats(); s.Inserts == 0 || s.Used == 64 {
		t.Errorf("%+v", s)
	}
}

// TestADeviceThatVanishes loses the device under a full cache.
func TestADeviceThatVanishes(t *testing.T) {
	c, name := open(t, 16*SlotSize)
	checkChurn(t, c, 16)
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	checkChurn(t, c, 16) // an open file lives on
	for _, f := range []*os.File{c.file, c.direct} {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	checkChurn(t, c, 16)
	if s := c.Stats(); s.Used != 0 || s.Corrupt == 0 {
		t.Errorf("%+v", s)
	}
}

// checkChurn inserts and reads over twice the cache: whatever is answered is right.
func checkChurn(t *testing.T, c *Cache, slots int) {
	t.Helper()
	p := make([]byte, SlotSize)
	for round := range 6 {
		for k := range 2 * slots {
			if n := (k*7 + round) % (2 * slots); c.ReadAt(key(n), p, 0) {
				if string(p) != string(content(n, SlotBlocks)) {
					t.Fatal("wrong content")
				}
			} else {
				c.Insert(key(n), content(n, SlotBlocks))
			}
		}
	}
}

// TestIndexMemory holds the index to what its documentation says.
func TestIndexMemory(t *testing.T) {
	const slots = 1 << 15 // 2 GiB
	before := heap()
	c, _ := open(t, slots*SlotSize)
	block := make([]byte, BlockSize)
	for k := range slots {
		c.Insert(key(k), block)
	}
	per := float64(heap()-before) / slots
	t.Logf("%.0f bytes per slot", per)
	if per > 320 {
		t.Errorf("%.0f bytes per slot", per)
	}
	runtime.KeepAlive(c)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
