package disk

import "sync"

// maxIdleBlocks bounds the memory that is kept for writes to come: 32 MiB.
const maxIdleBlocks = 32 << 20 / BlockSize

// blockMem is memory for the content of one block.
type blockMem [BlockSize]byte

// blockPool keeps a bounded amount of memory for blocks, so that steady writing makes no garbage. Its methods are
// safe for concurrent use.
type blockPool struct {
	mu   sync.Mutex
	free []*blockMem
}

// get fills dst with memory of any content.
func (p *blockPool) get(dst []*blockMem) {
	p.mu.Lock()
	n := min(len(dst), len(p.free))
	rest := len(p.free) - n
	copy(dst, p.free[rest:])
	clear(p.free[rest:])
	p.free = p.free[:rest]
	p.mu.Unlock()
	for i := n; i < len(dst); i++ {
		dst[i] = new(blockMem)
	}
}

// put takes memory back that nobody uses any more.
func (p *blockPool) put(mems []*blockMem) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, mems[:min(len(mems), maxIdleBlocks-len(p.free))]...)
}

// drain gives all of it back to the system.
func (p *blockPool) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = nil
}
