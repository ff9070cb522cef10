package disk

import (
	"cmp"
	"slices"
	"time"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/journal"
)

const (
	deadSlot    = ^uint64(0)
	maxZeroRuns = 4096 // in one log object
)

// batch is the content of one log object while it is in memory: data blocks by number, and ranges
// of zeros. A block in both holds the data. The disk's lock guards a batch until it is sealed; then
// nothing in it changes.
type batch struct {
	seq uint64
	slotTable
	zeros zeroSet
	since time.Time // of the first write

	stamps    stamps
	committed chan struct{} // closed when it and all before it are in the store and in the map
	uploaded  bool          // guarded by the disk's lock

	// bytes of content in the journal, also of blocks that were overwritten since
	logged int
	mark   journal.Mark // the journal's end when it was sealed

	// What encode made, for the map and the cache.
	order  []uint32 // live slots by block
	runs   []format.Run
	frames []format.Frame
	seg    format.SegmentEntry
}

func newBatch(now time.Time, tables *tablePool) *batch {
	return &batch{slotTable: tables.get(), committed: make(chan struct{}), since: now}
}

// blocks returns the number of slots taken, of dead ones too.
func (b *batch) blocks() int { return len(b.lbas) }

// put makes mem, which is the batch's from now on, the content of a block. It returns the memory of
// the content that the block had in the batch, or nil.
func (b *batch) put(block uint64, mem *blockMem) *blockMem {
	if i, ok := b.index[block]; ok {
		old := b.slots[i]
		b.slots[i] = mem
		return old
	}
	b.index[block] = uint32(len(b.lbas))
	b.lbas = append(b.lbas, block)
	b.slots = append(b.slots, mem)
	return nil
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
		copy(dst, b.slots[i][:])
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

// frame returns the content of frame n, block by block, in pieces.
func (b *batch) frame(n int, pieces [][]byte) [][]byte {
	pieces = pieces[:0]
	for _, i := range b.order[n*format.FrameBlocks : min(len(b.order), (n+1)*format.FrameBlocks)] {
		pieces = append(pieces, b.slots[i][:])
	}
	return pieces
}

// encode fixes the batch as a log object, in memory from bodies, and returns it. The first call
// decides the bytes for good. h lacks what the batch knows; key is nil on a disk in the clear.
func (b *batch) encode(
	c *format.Codec, h format.LogHeader, key *format.ObjectKey, bodies *bodyPool,
) []byte {
	b.plan()
	n := (len(b.order) + format.FrameBlocks - 1) / format.FrameBlocks
	b.frames = make([]format.Frame, n)
	h.Runs, h.Frames, h.Blocks = b.runs, b.frames, uint32(len(b.order))
	hlen := h.Len()
	body := bodies.get(hlen + len(b.order)*BlockSize + n*format.FrameOverhead)[:hlen]
	clear(body)
	pieces := make([][]byte, 0, format.FrameBlocks)
	frames := c.FrameWriter(h.Kind, hlen, key)
	for i := range n {
		body, b.frames[i] = frames.Append(body, b.frame(i, pieces)...)
	}
	h.Body = uint32(len(body) - hlen)
	h.Seal(body[:hlen], key)
	b.seg = format.SegmentEntry{Kind: format.KindLog, Epoch: h.Epoch, Seq: b.seq,
		Size:      uint64(len(body)),
		HeaderLen: uint32(hlen), Blocks: h.Blocks}
	return body
}

// release gives the batch's memory back. Nobody may read the batch any more.
func (b *batch) release(blocks *blockPool, tables *tablePool) {
	blocks.put(b.slots)
	tables.put(b.slotTable)
	b.slotTable = slotTable{}
}
