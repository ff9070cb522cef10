package disk

import "sync"

// maxIdleBlocks bounds the memory that is kept for writes to come: 32 MiB.
const maxIdleBlocks = 32 << 20 / BlockSize

// blockMem is memory for the content of one block.
type blockMem [BlockSize]byte

// freeList keeps memory that is used again and again, so that steady writing makes no garbage.
// Memory that is new to the process costs a page fault for each page, several times what copying
// into it costs. Its users bound it. Its methods are safe for concurrent use.
type freeList[T any] struct {
	mu   sync.Mutex
	free []T
}

// take moves the newest of what is kept to dst, and returns how many there were.
func (l *freeList[T]) take(dst []T) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(len(dst), len(l.free))
	rest := len(l.free) - n
	copy(dst, l.free[rest:])
	clear(l.free[rest:])
	l.free = l.free[:rest]
	return n
}

// keep takes memory back that nobody uses any more, and lets go of what would be more than most.
func (l *freeList[T]) keep(most int, mem ...T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free = append(l.free, mem[:max(0, min(len(mem), most-len(l.free)))]...)
}

// drain gives all of it back to the system.
func (l *freeList[T]) drain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free = nil
}

// memory is what the writes of a disk take and give back.
type memory struct {
	blocks blockPool
	bodies bodyPool
	tables tablePool
}

// drain gives all of it back to the system.
func (m *memory) drain() {
	m.blocks.drain()
	m.bodies.drain()
	m.tables.drain()
}

// blockPool is memory for the blocks of batches, up to maxIdleBlocks.
type blockPool struct{ freeList[*blockMem] }

// get fills dst with memory of any content.
func (p *blockPool) get(dst []*blockMem) {
	for i := p.take(dst); i < len(dst); i++ {
		dst[i] = new(blockMem)
	}
}

func (p *blockPool) put(mems []*blockMem) { p.keep(maxIdleBlocks, mems...) }

// bodyPool is memory for the bodies of log objects.
type bodyPool struct{ freeList[[]byte] }

// get returns an empty body with room for n bytes.
func (p *bodyPool) get(n int) []byte {
	var b [1][]byte
	if p.take(b[:]) == 1 && cap(b[0]) >= n {
		return b[0][:0]
	}
	return make([]byte, 0, n+n/8) // a little more fits the next time
}

// put takes back a body that nobody reads any more; most is how many are in use at a time.
func (p *bodyPool) put(body []byte, most int) { p.keep(most, body) }

// slotTable is where in a batch a block's content is.
type slotTable struct {
	index map[uint64]uint32 // block → slot
	lbas  []uint64          // slot → block, or deadSlot
	slots []*blockMem
}

// maxIdleTables is as many as batches are under way at a time, in most cases.
const maxIdleTables = 8

// tablePool is the tables of batches, which are as large as they have grown.
type tablePool struct{ freeList[slotTable] }

// get returns an empty table.
func (p *tablePool) get() slotTable {
	var t [1]slotTable
	if p.take(t[:]) == 0 {
		return slotTable{index: make(map[uint64]uint32)}
	}
	return t[0]
}

// put takes a table back that nobody reads any more.
func (p *tablePool) put(t slotTable) {
	clear(t.index)
	clear(t.slots)
	p.keep(maxIdleTables, slotTable{index: t.index, lbas: t.lbas[:0], slots: t.slots[:0]})
}
