package cache

import "slices"

// Insert keeps a frame's content, in pieces of whole blocks and up to SlotSize together, evicting
// another if it must. Failures are silent: the cache promises nothing. content is not kept.
func (c *Cache) Insert(k Key, content ...[]byte) {
	sums, blocks := c.hashes(content)
	if blocks == 0 {
		return
	}
	i, iv, ok := c.claim(k)
	if !ok {
		return
	}
	if k.sealed() {
		sealed := slices.Concat(content...)
		c.crypt(sealed, iv, 0)
		content = [][]byte{sealed}
	}
	err := c.write(content, int64(i)*SlotSize, blocks*BlockSize)
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.slots[i]
	if err != nil {
		c.forgetLocked(i)
		return
	}
	s.sums, s.blocks, s.state = sums, uint8(blocks), slotReady
	c.inserts.Add(1)
}

// hashes returns the hash of each block of content, and how many blocks that is: none if it
// is no frame.
func (c *Cache) hashes(content [][]byte) (sums [SlotBlocks]uint64, blocks int) {
	for _, piece := range content {
		if len(piece)%BlockSize != 0 || blocks+len(piece)/BlockSize > SlotBlocks {
			return sums, 0
		}
		for ; len(piece) > 0; piece = piece[BlockSize:] {
			sums[blocks] = c.sum(piece[:BlockSize])
			blocks++
		}
	}
	return sums, blocks
}

// claim reserves a slot for k and returns it with the vector for sealing.
func (c *Cache) claim(k Key) (int32, uint64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, there := c.index[k]; there || c.closed {
		return 0, 0, false
	}
	i := c.roomLocked()
	if i == none {
		return 0, 0, false
	}
	c.ivs++
	c.used++
	s := &c.slots[i]
	*s = slot{key: k, gen: s.gen + 1, iv: c.ivs, state: slotFilling}
	c.index[k] = i
	if c.ghosts.take(k) {
		c.push(&c.main, i)
	} else {
		c.push(&c.small, i)
	}
	return i, c.ivs, true
}
