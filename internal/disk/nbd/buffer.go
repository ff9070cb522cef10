package nbd

import (
	"math/bits"
	"sync"
)

const (
	smallestBuffer = 12 // 4 KiB, as a power of two
	largestBuffer  = 20 // 1 MiB; larger ones are rare and left to the collector
)

// bufferPool keeps buffers for payloads by size, a power of two.
type bufferPool struct {
	classes [largestBuffer - smallestBuffer + 1]sync.Pool
}

// buffer is memory for one payload. Its content is undefined at first.
type buffer struct {
	data  []byte
	whole []byte
	home  *sync.Pool // nil: none
}

func (p *bufferPool) get(n int) *buffer {
	class := max(0, bits.Len(uint(max(n, 1)-1))-smallestBuffer)
	if class >= len(p.classes) {
		return &buffer{data: make([]byte, n)}
	}
	home := &p.classes[class]
	b, ok := home.Get().(*buffer)
	if !ok {
		b = &buffer{whole: make([]byte, 1<<(class+smallestBuffer)), home: home}
	}
	b.data = b.whole[:n]
	return b
}

// free gives the buffer back. Nobody may use it any more.
func (b *buffer) free() {
	if b.home != nil {
		b.data = nil
		b.home.Put(b)
	}
}
