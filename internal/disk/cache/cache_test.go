package cache

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

func open(t *testing.T, size int64) (*Cache, string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "cache")
	c, err := Open(name, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, name
}

func content(n, blocks int) []byte {
	b := make([]byte, blocks*BlockSize)
	for i := range b {
		b[i] = byte(n*31 + i/BlockSize + i)
	}
	return b
}

func key(n int) Key { return Key{Space: 1, Kind: 1, Epoch: 1, Seq: uint64(n)} }

func TestInsertAndRead(t *testing.T) {
	c, _ := open(t, 4*SlotSize)
	c.Insert(key(1), content(1, 16))
	c.Insert(key(2), content(2, 3))
	p := make([]byte, 2*BlockSize)
	if !c.ReadAt(key(1), p, 5) || !bytes.Equal(p, content(1, 16)[5*BlockSize:7*BlockSize]) {
		t.Error("a part of a full frame")
	}
	if !c.ReadAt(key(2), p, 1) || c.ReadAt(key(2), p, 2) || c.ReadAt(key(3), p, 0) {
		t.Error("a short frame, past its end, and one that isn't there")
	}
	if !c.Contains(key(2)) || c.Contains(key(3)) {
		t.Error("Contains")
	}
	if s := c.Stats(); s.Hits != 2 || s.Misses != 2 || s.Inserts != 2 || s.Used != 2 {
		t.Errorf("%+v", s)
	}
	if a := c.Space("a", false); a == c.Space("b", false) || a != c.Space("a", false) {
		t.Error("spaces")
	}
}

func TestInsertInPieces(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		c, _ := open(t, 4*SlotSize)
		k := Key{Space: c.Space("disk", sealed), Kind: 1}
		whole := content(1, 16)
		c.Insert(k, whole[:BlockSize], whole[BlockSize:3*BlockSize], whole[3*BlockSize:])
		p := make([]byte, 16*BlockSize)
		if !c.ReadAt(k, p, 0) || !bytes.Equal(p, whole) || !bytes.Equal(whole, content(1, 16)) {
			t.Errorf("sealed %v: the pieces are not the frame, or were changed", sealed)
		}
		k.Frame = 1
		c.Insert(k, whole, whole[:BlockSize])
		c.Insert(k, whole[:BlockSize], whole[:100])
		c.Insert(k)
		if c.Contains(k) {
			t.Error("kept what is no frame")
		}
	}
}

func TestAScanLeavesWhatIsUsed(t *testing.T) {
	c, _ := open(t, 8*SlotSize)
	p := make([]byte, BlockSize)
	for i := range 4 {
		c.Insert(key(i), content(i, 1))
	}
	for n := 100; n < 140; n++ { // a scan, while the four are in use
		for i := range 4 {
			if !c.ReadAt(key(i), p, 0) {
				t.Fatalf("%d was evicted by a scan", i)
			}
		}
		c.Insert(key(n), content(n, 1))
	}
	if s := c.Stats(); s.Used != 8 || s.Evictions != 36 {
		t.Errorf("%+v", s)
	}
}

func TestCorruptionIsAMiss(t *testing.T) {
	c, name := open(t, 2*SlotSize)
	c.Insert(key(1), content(1, 16))
	if err := os.WriteFile(name, make([]byte, 2*SlotSize), 0o600); err != nil {
		t.Fatal(err)
	}
	if c.ReadAt(key(1), make([]byte, BlockSize), 0) || c.Contains(key(1)) ||
		c.Stats().Corrupt != 1 {
		t.Error("corrupt content was believed")
	}
	c.Insert(key(1), content(1, 16))
	if !c.ReadAt(key(1), make([]byte, BlockSize), 0) {
		t.Error("the slot can't be used again")
	}
	if err := os.Truncate(name, 0); err != nil {
		t.Fatal(err)
	}
	if c.ReadAt(key(1), make([]byte, BlockSize), 0) {
		t.Error("read from a file that is gone")
	}
}

func TestNothingOfAnEarlierRunIsBelieved(t *testing.T) {
	c, name := open(t, 2*SlotSize)
	c.Insert(key(1), content(1, 16))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c.Insert(key(2), content(2, 1)) // does nothing
	if c.ReadAt(key(1), make([]byte, BlockSize), 0) {
		t.Error("read after close")
	}
	again, err := Open(name, 0) // all of the existing file
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.ReadAt(key(1), make([]byte, BlockSize), 0) || again.Stats().Slots != 2 {
		t.Error("content of an earlier run")
	}
}

func TestOpenRefusesWhatCannotWork(t *testing.T) {
	for name, size := range map[string]int64{filepath.Join(t.TempDir(), "x"): 100,
		t.TempDir(): 1 << 20} {
		if c, err := Open(name, size); err == nil {
			c.Close()
			t.Errorf("%s with %d bytes", name, size)
		} else if !errs.Is(err, errs.Invalid) || errs.RemedyOf(err) == "" {
			t.Error(err)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	c, _ := open(t, 16*SlotSize)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			p := make([]byte, BlockSize)
			for range 2000 {
				n := rng.IntN(40)
				if rng.IntN(3) == 0 {
					c.Insert(key(n), content(n, 4))
				} else if b := rng.IntN(4); c.ReadAt(key(n), p, b) &&
					!bytes.Equal(p, content(n, 4)[b*BlockSize:(b+1)*BlockSize]) {
					t.Error("wrong content")
				}
			}
		})
	}
	wg.Wait()
}
