// Package cache keeps decompressed frames on a local block device or file.
//
// Invariants:
//
//   - Nothing in it is ever the only copy. Its loss, corruption or replacement at any moment costs
//     time only.
//   - Nothing is returned that doesn't match the hash taken when it was inserted: the index with
//     the hashes is in memory, so that whatever a previous run left on the device is never
//     believed. A slot may be reused while it is read, so that the hash is also what tells one
//     frame from another. It is 64 bits under a seed that only this process has.
//   - Of encrypted disks nothing is on the device in the clear: their frames are encrypted under a
//     key that is in this process's memory only and gone with it.
//   - No I/O happens under its lock.
package cache

import (
	"crypto/cipher"
	"errors"
	"hash/maphash"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Geometry: a slot holds one frame of up to 16 blocks of 4 KiB. Each block has its own hash, so
// that a 4 KiB read costs 4 KiB of I/O.
const (
	BlockSize  = 4096
	SlotBlocks = 16
	SlotSize   = SlotBlocks * BlockSize
)

// Key identifies a frame of an immutable segment. Space comes from Cache.Space.
type Key struct {
	Space uint32
	Kind  uint8
	Frame uint32
	Epoch uint64
	Seq   uint64
}

// Stats counts since Open.
type Stats struct {
	Hits      uint64 `json:"hits"`
	Misses    uint64 `json:"misses"`
	Inserts   uint64 `json:"inserts"`
	Evictions uint64 `json:"evictions"`
	Corrupt   uint64 `json:"corrupt"` // reads whose hash or I/O failed; answered as misses
	Slots     int    `json:"slots"`
	Used      int    `json:"used"`
}

type slot struct {
	key    Key
	sums   [SlotBlocks]uint64
	gen    uint32 // changes with every reuse
	iv     uint64 // of a sealed frame: never the same twice
	blocks uint8
	state  uint8
	uses   uint8
	end    uint8 // block after the last read
	next   int32 // in its queue
}

const (
	slotFree uint8 = iota
	slotFilling
	slotReady
)

// Cache is a fixed number of slots on a device with an index in memory, of about 300 bytes a slot:
// under 5 MiB for each GiB. Safe for concurrent use.
type Cache struct {
	file    *os.File
	direct  *os.File    // the same, around the page cache; nil where that can't be
	refused atomic.Bool // direct didn't take a write
	seed    maphash.Seed
	seal    cipher.Block // under a key that only this process has

	mu     sync.Mutex
	index  map[Key]int32
	slots  []slot
	fresh  int // slots from here on were never used
	small  queue
	main   queue
	ghosts ghosts
	used   int
	ivs    uint64 // given out
	spaces map[string]uint32
	closed bool

	hits, misses, inserts, evictions, corrupt atomic.Uint64
}

// Open uses the block device or file at path, creating a file where there is nothing. size is in
// bytes, cut to a whole number of slots; 0 takes all of an existing device or file, and a device's
// size is the upper bound. What is there is overwritten and never believed.
func Open(path string, size int64) (*Cache, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err,
			"open cache").WithRemedy("give a block device or a file that can be written")
	}
	c, err := newCache(f, size)
	if err != nil {
		return nil, errs.Wrap(errs.KindOf(err), closeAfter(f, err), "open cache %s", path)
	}
	c.direct = openDirect(path)
	return c, nil
}

func newCache(f *os.File, size int64) (*Cache, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "stat")
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "seek")
	}
	isFile := st.Mode().IsRegular()
	if size <= 0 || (!isFile && size > end) {
		size = end
	}
	n := size / SlotSize
	if n < 1 || n > 1<<30 {
		return nil, errs.New(errs.Invalid, "a cache of %d bytes", size).
			WithRemedy("use between %d bytes and 64 TiB", SlotSize)
	}
	if isFile && end < n*SlotSize {
		if err := f.Truncate(n * SlotSize); err != nil {
			return nil, errs.Wrap(errs.Exhausted, err, "grow the file")
		}
	}
	seal, err := newSeal()
	if err != nil {
		return nil, err
	}
	return &Cache{
		file: f, seal: seal, seed: maphash.MakeSeed(), slots: make([]slot, n),
		ghosts: newGhosts(int(n)), index: make(map[Key]int32), spaces: make(map[string]uint32),
	}, nil
}

func closeAfter(f *os.File, err error) error {
	if cerr := f.Close(); cerr != nil {
		return errs.Wrap(errs.KindOf(err), err, "and close: %v", cerr)
	}
	return err
}

// Space returns the number that stands for a disk (by its uid) in keys. What is kept under the
// number of a sealed one is encrypted on the device.
func (c *Cache) Space(uid string, sealed bool) uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.spaces[uid]
	if !ok {
		n = uint32(len(c.spaces) + 1)
		c.spaces[uid] = n
	}
	if sealed {
		return n | sealedSpace
	}
	return n
}

// Contains reports whether a frame is there to be read.
func (c *Cache) Contains(k Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, ok := c.index[k]
	return ok && c.slots[i].state == slotReady
}

// ReadAt fills p with a frame's content from block first on, and reports whether it could. p is a
// multiple of BlockSize. On false p's content is undefined.
func (c *Cache) ReadAt(k Key, p []byte, first int) bool {
	n := len(p) / BlockSize
	c.mu.Lock()
	i, ok := c.index[k]
	if !ok || c.closed || c.slots[i].state != slotReady || first+n > int(c.slots[i].blocks) {
		c.mu.Unlock()
		c.misses.Add(1)
		return false
	}
	s := &c.slots[i]
	s.use(first, n)
	sums, gen, iv := s.sums, s.gen, s.iv
	c.mu.Unlock()

	_, err := c.file.ReadAt(p, int64(i)*SlotSize+int64(first)*BlockSize)
	good := err == nil
	if good && k.sealed() {
		c.crypt(p, iv, first)
	}
	for b := 0; good && b < n; b++ {
		good = c.sum(p[b*BlockSize:(b+1)*BlockSize]) == sums[first+b]
	}
	if good {
		c.hits.Add(1)
		return true
	}
	c.drop(k, i, gen)
	c.misses.Add(1)
	return false
}

// sum returns a block's hash. A CRC would not do: content that ends in its own, as records of
// databases and blocks of file systems do, has the same one whatever it is.
func (c *Cache) sum(block []byte) uint64 { return maphash.Bytes(c.seed, block) }

// drop forgets a slot whose content failed its check, unless it was reused meanwhile.
func (c *Cache) drop(k Key, i int32, gen uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.slots[i]
	if s.gen != gen || s.state != slotReady || s.key != k {
		return
	}
	c.corrupt.Add(1)
	c.forgetLocked(i)
}

// Stats returns the counters.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	slots, used := len(c.slots), c.used
	c.mu.Unlock()
	return Stats{Hits: c.hits.Load(), Misses: c.misses.Load(), Inserts: c.inserts.Load(),
		Evictions: c.evictions.Load(), Corrupt: c.corrupt.Load(), Slots: slots, Used: used}
}

// Close closes the device. Later reads miss and later inserts do nothing.
func (c *Cache) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	if c.direct != nil {
		return errors.Join(c.direct.Close(), c.file.Close())
	}
	return c.file.Close()
}
