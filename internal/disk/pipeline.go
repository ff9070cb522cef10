package disk

import (
	"sync"
	"time"
)

// pipeline has a disk's writes on their way into the store, and why it takes no more of them.
//
// mu guards all that is here, and also the stages (staging) and the use of a journal (bounding). A
// sealed batch doesn't change any more, but for its uploaded flag. commitMu makes commits happen in
// order. Lock order: commitMu, mu, all others. No I/O happens under either.
type pipeline struct {
	commitMu sync.Mutex

	mu          sync.RWMutex
	forming     *batch   // nil while nothing is dirty
	queue       []*batch // sealed, from old to new
	started     int      // of the queue, being uploaded
	flushWanted bool     // a flush waits for the forming batch
	nextSeq     uint64   // of the next sealed batch
	acked       uint64   // the last committed
	mapped      uint64   // the last that a written map covers
	commits     uint64   // batches that left memory
	dirty       int64    // bytes in memory
	blocking    blocking
	room        chan struct{}

	err      error         // why the disk stopped; the first reason stays
	stopped  chan struct{} // closed with it
	closing  bool
	detached bool
}

func newPipeline() pipeline {
	return pipeline{nextSeq: 1, blocking: blocking{since: time.Now()},
		room: make(chan struct{}), stopped: make(chan struct{})}
}

// madeRoomLocked wakes all who wait for room: for writes to leave memory.
func (p *pipeline) madeRoomLocked() {
	close(p.room)
	p.room = make(chan struct{})
}
