package disk

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// maxReplayFactor bounds a crash replay when the map can't be written as fast as the log. At this
// many times CheckpointObjects, uploads wait for the map.
const maxReplayFactor = 4

// secondReplayFactor replaces maxReplayFactor on a disk with a log store. That is there to go on
// when the disk's own store stalls, and no map can be written then. Its objects are also read
// faster.
const secondReplayFactor = 64

func (d *Disk) maxReplay() uint64 {
	factor := maxReplayFactor
	if d.logPlace != nil {
		factor = secondReplayFactor
	}
	return uint64(factor * d.opts.CheckpointObjects)
}

// Flush returns when the store has every write that returned before. In mode bounded with a journal
// it returns when the journal has them, and the store lacks none older than the bound. With nothing
// to wait for it makes no request. After StallTimeout it fails as Unavailable; the data stays and
// goes on being sent.
func (d *Disk) Flush(ctx context.Context) error {
	d.touch()
	d.pipe.mu.Lock()
	if err := d.mutableLocked(); err != nil {
		d.pipe.mu.Unlock()
		return err
	}
	start := time.Now()
	f := flushing{began: start}
	defer d.noteFlush(start, &f)
	if d.bounding.journal.acknowledgesLocked(d.pipe.acked) {
		return d.flushJournalAndUnlock(ctx, &f)
	}
	return d.flushAndUnlock(ctx, &f)
}

// flushStore is Flush into the store, in every mode.
func (d *Disk) flushStore(ctx context.Context) error {
	d.pipe.mu.Lock()
	if err := d.mutableLocked(); err != nil {
		d.pipe.mu.Unlock()
		return err
	}
	return d.flushAndUnlock(ctx, &flushing{})
}

func (d *Disk) flushAndUnlock(ctx context.Context, f *flushing) error {
	d.counters.flushes.Add(1)
	var last *batch
	if d.pipe.forming != nil {
		last, d.pipe.flushWanted = d.pipe.forming, true
		d.pumpLocked()
	} else if n := len(d.pipe.queue); n > 0 {
		last = d.pipe.queue[n-1]
	}
	f.blocked = d.pipe.blocking.until(f.began)
	d.pipe.mu.Unlock()
	if last == nil {
		return nil
	}
	err := d.awaitCommit(ctx, last)
	d.splitFlush(f, last)
	return err
}

// awaitCommit returns when a batch is committed, or won't be.
func (d *Disk) awaitCommit(ctx context.Context, b *batch) error {
	ctx, cancel := d.stall(ctx)
	defer cancel()
	select {
	case <-b.committed:
		return nil
	case <-d.pipe.stopped:
		if b.isCommitted() { // all the same
			return nil
		}
		return d.Err()
	case <-ctx.Done():
		return d.stalled(ctx, "flush")
	}
}

// sealLocked ends the forming batch and queues it.
func (d *Disk) sealLocked() {
	b := d.pipe.forming
	d.pipe.forming, d.pipe.flushWanted = nil, false
	b.seq = d.pipe.nextSeq
	d.pipe.nextSeq++
	if d.bounding.journal.active != nil {
		b.mark = d.bounding.journal.active.Mark()
	}
	d.pipe.queue = append(d.pipe.queue, b)
}

// pumpLocked starts as many uploads as may run, and seals the forming batch for a flush when one of
// them could be its. Until then, later flushes join it.
func (d *Disk) pumpLocked() {
	for d.pipe.err == nil && d.mayUploadLocked() {
		seq := d.pipe.nextSeq - uint64(len(d.pipe.queue)-d.pipe.started) // of the object to start
		if seq-d.pipe.mapped > d.maxReplay() && !d.bounding.recovering {
			d.pipe.blocking.is(inMap)
			d.wakeMapWriter()
			return
		}
		if d.pipe.started == len(d.pipe.queue) {
			if !d.pipe.flushWanted || d.pipe.forming == nil {
				return
			}
			d.sealLocked()
		}
		b := d.pipe.queue[d.pipe.started]
		b.stamps.start(&d.pipe.blocking)
		if !d.tasks.spawn(func(ctx context.Context) { d.upload(ctx, b) }) {
			return
		}
		d.pipe.started++
	}
}

// mayUploadLocked reports whether one more upload may begin, and notes why not.
func (d *Disk) mayUploadLocked() bool {
	switch {
	case d.pipe.started >= d.opts.InFlight, d.tooMuchUnproven():
		d.pipe.blocking.is(inQueue)
		return false
	case d.pipe.started >= d.logStore.Uploads():
		d.pipe.blocking.is(inPace)
		return false
	}
	return true
}

// upload compresses a batch and writes its log object, however long that takes. Then it commits all
// batches that can be.
func (d *Disk) upload(ctx context.Context, b *batch) {
	h := format.LogHeader{Kind: format.KindLog, Disk: d.uid, Nonce: newID(), Epoch: d.epoch,
		Seq: b.seq, Created: now().UnixMilli()}
	d.pipe.mu.RLock()
	h.SetAcknowledged(d.pipe.acked)
	d.pipe.mu.RUnlock()
	sealer, err := d.sealer(&h)
	if err != nil {
		d.fail(err)
		return
	}
	body := b.encode(d.reader.codec, h, sealer, &d.memory.bodies)
	b.stamps.encode()
	d.preload(b.runs)
	key, err := d.logKey(d.epoch, b.seq)
	if err != nil {
		d.fail(err)
		return
	}
	mine := func(got []byte) bool { return format.SameLogObject(got, body) }
	owned, err := d.logStore.Upload(ctx, key, body, mine, &b.stamps.spent)
	if err != nil {
		d.uploadFailed(ctx, key, err)
		return
	}
	d.keepUnproven(&unprovenObject{at: d.logStore, seq: b.seq, key: key, body: body, owned: owned})
	d.counters.logObjects.Add(1)
	if d.logPlace == nil {
		d.reader.frames.keepHeader(&b.seg, b.frames, b.runs, sealer)
	}
	d.pipe.mu.Lock()
	b.uploaded, b.stamps.uploaded = true, time.Now()
	d.pipe.mu.Unlock()
	for _, b := range d.commit() {
		d.keepFrames(b)
		b.release(&d.memory.blocks, &d.memory.tables)
	}
}

// preload begins to read the map pages below what a log object changes, beside its upload. The next
// map checkpoint needs them, and somebody may be waiting for that. One preload runs at a time, so
// that they don't take the uploads' bandwidth; the checkpoint reads what is left.
func (d *Disk) preload(runs []format.Run) {
	if !d.mapping.preloading.CompareAndSwap(false, true) {
		return
	}
	parts := d.reader.m.Missing(runs)
	if len(parts) == 0 || !d.tasks.spawn(func(ctx context.Context) {
		defer d.mapping.preloading.Store(false)
		_ = d.reader.m.Preload(ctx, parts)
	}) {
		d.mapping.preloading.Store(false)
	}
}

// uploadFailed stops the disk if a retry doesn't cure the error.
func (d *Disk) uploadFailed(ctx context.Context, key string, err error) {
	switch {
	case errs.Is(err, errs.Conflict):
		d.fail(errs.Wrap(errs.Fenced, err,
			"%s: a newer writer of the disk ended this one's log", key).
			WithRemedy("stop; the disk is attached elsewhere"))
	case ctx.Err() == nil:
		d.fail(errs.Wrap(errs.KindOf(err), err, "write %s", key))
	}
}

// commit applies uploaded batches to the map and acknowledges them, in order, as far as there is no
// gap. It returns the batches that left memory; nobody else reads those any more. What is in a log
// store is applied later, and stays.
func (d *Disk) commit() []*batch {
	d.pipe.commitMu.Lock()
	defer d.pipe.commitMu.Unlock()
	var gone []*batch
	for {
		d.pipe.mu.RLock()
		ready := d.pipe.err == nil && len(d.pipe.queue) > 0 && d.pipe.queue[0].uploaded
		var b *batch
		if ready {
			b = d.pipe.queue[0]
		}
		d.pipe.mu.RUnlock()
		if !ready {
			return gone
		}
		turn := time.Now()
		if d.logPlace != nil {
			d.popCommitted(b, turn)
			continue
		}
		next := format.Position{Epoch: d.epoch, Seq: b.seq + 1}
		if err := d.reader.m.Apply(b.seg, b.runs, next); err != nil {
			d.fail(errs.Wrap(errs.KindOf(err), err, "commit log object %d", b.seq))
			return gone
		}
		d.popCommitted(b, turn)
		gone = append(gone, b)
	}
}

// popCommitted takes the oldest batch, whose turn has come at a moment, off the queue.
func (d *Disk) popCommitted(b *batch, turn time.Time) {
	d.pipe.mu.Lock()
	defer d.pipe.mu.Unlock()
	d.pipe.queue[0] = nil
	d.pipe.queue = d.pipe.queue[1:]
	d.pipe.started--
	d.pipe.acked = b.seq
	if d.logPlace != nil {
		d.stageLocked(b)
	} else {
		d.pipe.commits++
		d.pipe.dirty -= int64(b.blocks()) * BlockSize
	}
	if d.bounding.journal.active != nil {
		d.bounding.journal.active.Release(b.mark)
	}
	b.stamps.turn = turn
	close(b.committed)
	d.pipe.madeRoomLocked()
	if d.pipe.acked-d.pipe.mapped >= uint64(d.opts.CheckpointObjects) {
		d.wakeMapWriter()
	}
	d.pumpLocked()
}

// keepFrames puts a committed batch's frames into the cache, from memory.
func (d *Disk) keepFrames(b *batch) {
	d.reader.frames.fill(len(b.order)*BlockSize, func() {
		pieces := make([][]byte, 0, format.FrameBlocks)
		for i := range b.frames {
			key := d.reader.frames.key(&b.seg, uint32(i))
			d.reader.frames.keep(key, b.frame(i, pieces)...)
		}
	})
}

// wakeMapWriter wakes the loop that writes map checkpoints.
func (d *Disk) wakeMapWriter() { d.mapping.wake.notify() }
