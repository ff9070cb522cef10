package cache

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
)

// checkedBlock returns a block that ends in its own CRC32C, as records of databases do. All such
// blocks have one CRC32C, so that no CRC tells them apart.
func checkedBlock(n int) []byte {
	b := bytes.Repeat(binary.LittleEndian.AppendUint64(nil, uint64(n)), BlockSize/8)
	sum := crc32.Checksum(b[:BlockSize-4], crc32.MakeTable(crc32.Castagnoli))
	binary.LittleEndian.PutUint32(b[BlockSize-4:], sum)
	return b
}

// TestOtherContentIsNoHit: a slot that has become another frame's is not the first one's, whatever
// the two have in common.
func TestOtherContentIsNoHit(t *testing.T) {
	c, name := open(t, 4*SlotSize)
	c.Insert(key(1), checkedBlock(1))
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(checkedBlock(2), 0); err != nil {
		t.Fatal(err)
	}
	if p := make([]byte, BlockSize); c.ReadAt(key(1), p, 0) {
		t.Errorf("frame 1 is answered with % x", p[:8])
	}
}

// TestReadsBesideReuse: many read and insert more frames than there are slots. Nobody gets another
// frame's content.
func TestReadsBesideReuse(t *testing.T) {
	c, _ := open(t, 4*SlotSize)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(w)))
			p := make([]byte, BlockSize)
			for range 4000 {
				n := rng.IntN(12)
				if !c.ReadAt(key(n), p, 0) {
					c.Insert(key(n), checkedBlock(n))
				} else if got := binary.LittleEndian.Uint64(p); got != uint64(n) {
					t.Errorf("frame %d is answered with %d", n, got)
					return
				}
			}
		})
	}
	wg.Wait()
	if s := c.Stats(); s.Hits == 0 || s.Evictions == 0 {
		t.Errorf("nothing was hit, or nothing reused: %+v", s)
	}
}
