package disk

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/journal"
)

const (
	chunkBlocks  = 64 // 256 KiB
	chunkSize    = chunkBlocks * BlockSize
	deadSlot     = ^uint64(0)
	maxZeroRuns  = 4096 // in one log object
	maxIdleBytes = 32 << 20
)

// batch is the content of one log object while it is in memory: data blocks by number, and ranges of
// zeros. A block in both holds the data. The disk's lock guards a batch until it is sealed; then nothing
// in it changes.
type batch struct {
	seq    uint64
	index  map[uint64]uint32 // block → slot
	lbas   []uint64          // slot → block, or deadSlot
	chunks [][]byte
	zeros  zeroSet
	since  time.Time // of the first write

	committed chan struct{} // closed when it and all before it are in the store and in the map
	uploaded  bool          // guarded by the disk's lock

	logged int          // bytes of content in the journal, also of blocks that were overwritten since
	mark   journal.Mark // the journal's end when it was sealed

	// What encode made, for the map and the cache.
	order  []uint32 // live slots by block
	runs   []format.Run
	frames []format.Frame
	seg    format.SegmentEntry
}

func newBatch(now time.Time) *batch {
	return &batch{index: make(map[uint64]uint32), committed: make(chan struct{}), since: now}
}

// blocks returns the number of slots taken, of dead ones too.
func (b *batch) blocks() int { return len(b.lbas) }

// slot returns the memory of a slot.
func (b *batch) slot(i uint32) []byte {
	off := int(i%chunkBlocks) * BlockSize
	return b.chunks[i/chunkBlocks][off : off+BlockSize : off+BlockSize]
}

// put returns the memory for a block's content, and whether it was there already with its content.
func (b *batch) put(block uint64, pool *chunkPool) ([]byte, bool) {
	if i, ok := b.index[block]; ok {
		return b.slot(i), true
	}
	i := uint32(len(b.lbas))
	if i%chunkBlocks == 0 {
		b.chunks = append(b.chunks, pool.get())
	}
	b.lbas = append(b.lbas, block)
	b.index[block] = i
	return b.slot(i), false
}

// zero makes blocks [from, to) zeros.
func (b *batch) zero(from, to uint64) {
	if to-from < uint64(len(b.index)) {
		for blk := from; blk < to; blk++ {
			b.kill(blk)
		}
	} else {
		for blk := range b.index {
			if blk >= from && blk < to {
				b.kill(blk)
			}
		}
	}
	b.zeros.add(from, to)
}

func (b *batch) kill(block uint64) {
	if i, ok := b.index[block]; ok {
		b.lbas[i] = deadSlot
		delete(b.index, block)
	}
}

// read copies a block's content to dst if the batch has it.
func (b *batch) read(dst []byte, block uint64) bool {
	if i, ok := b.index[block]; ok {
		copy(dst, b.slot(i))
		return true
	}
	if len(b.zeros) > 0 && b.zeros.has(block) {
		clear(dst)
		return true
	}
	return false
}

// plan fixes the order of the blocks, by number, and the runs.
func (b *batch) plan() {
	b.order = make([]uint32, 0, len(b.index))
	for i, lba := range b.lbas {
		if lba != deadSlot {
			b.order = append(b.order, uint32(i))
		}
	}
	byBlock := func(x, y uint32) int { return cmp.Compare(b.lbas[x], b.lbas[y]) }
	if !slices.IsSortedFunc(b.order, byBlock) {
		slices.SortFunc(b.order, byBlock)
	}
	for _, z := range b.zeros {
		b.runs = append(b.runs, format.Run{LBA: z.from, Count: z.to - z.from, Kind: format.RunZero})
	}
	zeros := len(b.runs)
	for _, i := range b.order {
		if n := len(b.runs); n > zeros && b.runs[n-1].LBA+b.runs[n-1].Count == b.lbas[i] {
			b.runs[n-1].Count++
			continue
		}
		b.runs = append(b.runs, format.Run{LBA: b.lbas[i], Count: 1})
	}
}

// frame returns the content of frame n: in place where its blocks lie side by side in memory, as those of a
// sequential write do, else gathered in buf, which frameBuffer made.
func (b *batch) frame(n int, buf []byte) []byte {
	slots := b.order[n*format.FrameBlocks : min(len(b.order), (n+1)*format.FrameBlocks)]
	first, last := slots[0], slots[len(slots)-1]
	if int(last-first) == len(slots)-1 && first/chunkBlocks == last/chunkBlocks && slices.IsSorted(slots) {
		off := int(first%chunkBlocks) * BlockSize
		return b.chunks[first/chunkBlocks][off : off+len(slots)*BlockSize]
	}
	buf = buf[:0]
	for _, i := range slots {
		buf = append(buf, b.slot(i)...)
	}
	return buf
}

// frameBuffer returns room for the largest frame of the batch.
func (b *batch) frameBuffer() []byte {
	return make([]byte, 0, min(len(b.order), format.FrameBlocks)*BlockSize)
}

// encode fixes the batch as a log object, appended to body, and returns it. The first call decides the
// bytes for good. h lacks what the batch knows; key is nil on a disk in the clear.
func (b *batch) encode(c *format.Codec, h format.LogHeader, key *format.ObjectKey, body []byte) []byte {
	b.plan()
	n := (len(b.order) + format.FrameBlocks - 1) / format.FrameBlocks
	b.frames = make([]format.Frame, n)
	h.Runs, h.Frames, h.Blocks = b.runs, b.frames, uint32(len(b.order))
	hlen := h.Len()
	body = append(body, make([]byte, hlen)...)
	buf := b.frameBuffer()
	for i := range n {
		body, b.frames[i] = c.AppendFrame(body, hlen, b.frame(i, buf), key, i)
	}
	h.Body = uint32(len(body) - hlen)
	h.Seal(body[:hlen], key)
	b.seg = format.SegmentEntry{Kind: format.KindLog, Epoch: h.Epoch, Seq: b.seq, Size: uint64(len(body)),
		HeaderLen: uint32(hlen), Blocks: h.Blocks}
	return body
}

// release gives the batch's memory back. Nobody may read the batch any more.
func (b *batch) release(pool *chunkPool) {
	for _, c := range b.chunks {
		pool.put(c)
	}
	b.chunks, b.index, b.lbas = nil, nil, nil
}

// chunkPool keeps a bounded amount of memory for blocks, so that steady writing makes no garbage.
type chunkPool struct {
	mu   sync.Mutex
	free [][]byte
}

func (p *chunkPool) get() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		c := p.free[n-1]
		p.free = p.free[:n-1]
		return c
	}
	return make([]byte, chunkSize)
}

// drain gives all of it back to the system.
func (p *chunkPool) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = nil
}

func (p *chunkPool) put(c []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) < maxIdleBytes/chunkSize {
		p.free = append(p.free, c)
	}
}
