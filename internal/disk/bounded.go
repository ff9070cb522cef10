package disk

import (
	"context"
	"errors"
	"time"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/journal"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// In mode bounded the local journal acknowledges flushes, as long as no write that the store lacks
// is older than the bound. Batches go to the store as ever, and the journal keeps what they hold
// until they are there. See package journal for what is believed after a crash.

// sealShare is the part of the bound after which writes are uploaded at the latest.
const sealShare = 4

func sessionOf(h *format.Head) (journal.Session, error) {
	id, err := parseUID(h.Session)
	return journal.Session{Epoch: h.Epoch, ID: id}, err
}

// JournalHas reports whether an attach of the disk with that head would write to the store what the
// journal has. Of an open disk of mode bounded whose journal this isn't, acknowledged writes may be
// elsewhere.
func JournalHas(j *journal.Journal, head *format.Head) (bool, error) {
	uid, err := parseUID(head.UID)
	if err != nil || head.State != format.StateOpen {
		return false, err
	}
	found, err := sessionOf(head)
	return err == nil && j.Matches(uid, found), err
}

// claimJournal reports whether the journal holds what the store may lack. It records the claim that
// is about to be made of the head, so that dying after that loses nothing. It refuses a journal
// that another disk may need, before anything has changed.
func (d *Disk) claimJournal(head, next *format.Head) (bool, error) {
	if d.opts.Journal == nil {
		return false, nil
	}
	if head.Mode == format.ModeBounded {
		if err := d.opts.Journal.MayBegin(d.uid); err != nil {
			return false, err
		}
	}
	if head.State != format.StateOpen {
		return false, nil
	}
	found, err := sessionOf(head)
	if err != nil || !d.opts.Journal.Matches(d.uid, found) {
		return false, err
	}
	own, err := sessionOf(next)
	if err != nil {
		return false, err
	}
	return true, d.opts.Journal.Claim(found, own)
}

// recoverJournal writes the journal's batches that the store lacks to our log, each as the one log
// object that it was to be. last has the end of each log since the journal's epoch: those after it
// hold what earlier recoveries have written of the same.
func (d *Disk) recoverJournal(
	ctx context.Context, pos format.Position, last map[uint64]uint64,
) error {
	source := d.opts.Journal.Source().Epoch
	if pos.Epoch > source {
		return nil // a map has been written since, which none is before all is recovered
	}
	done := uint64(0)
	for epoch := source; epoch < d.epoch; epoch++ {
		done += last[epoch]
	}
	d.pipe.mu.Lock()
	d.bounding.recovering = true
	d.pipe.mu.Unlock()
	records := 0
	err := d.opts.Journal.Replay(func(r *journal.Record) error {
		if r.Seq <= done {
			return nil
		}
		records++
		return d.writeAgain(ctx, r, done)
	})
	if errors.Is(err, errJournalGap) {
		err = nil
	}
	if err == nil {
		err = d.flushStore(ctx)
	}
	d.pipe.mu.Lock()
	d.bounding.recovering = false
	d.pipe.mu.Unlock()
	if err == nil && records > 0 {
		d.opts.Logger.Info("recovered acknowledged writes from the journal",
			"disk", d.path, "epoch", source, "writes", records)
	}
	return err
}

// errJournalGap ends the reading of a journal that lacks a batch.
var errJournalGap = errs.New(errs.Corrupt, "the journal lacks a batch")

// writeAgain puts a journal's record into the batch that it was in. Batches up to done are in the
// store.
func (d *Disk) writeAgain(ctx context.Context, r *journal.Record, done uint64) error {
	if r.Block+r.Count > d.reader.blocks.Load() {
		return errs.New(errs.Corrupt,
			"the journal has a write of %d blocks at %d, past the end of the disk",
			r.Count, r.Block)
	}
	d.pipe.mu.Lock()
	at := done + d.pipe.nextSeq // of the forming batch, in the source's log
	if r.Seq == at+1 && d.pipe.forming != nil {
		d.sealLocked()
		d.pumpLocked()
		d.pipe.mu.Unlock()
		if err := d.lockForWrite(ctx, 0); err != nil {
			return err
		}
		at++
	}
	defer d.pipe.mu.Unlock()
	if r.Seq != at {
		return errJournalGap
	}
	b := d.formLocked()
	if r.Kind == journal.Zero {
		b.zero(r.Block, r.Block+r.Count)
		return nil
	}
	for i := range r.Count {
		content := blockMem(r.Blocks[i*BlockSize:])
		d.putLocked(b, r.Block+i, &content)
	}
	return nil
}

// beginJournal makes the journal ours, empty. If that fails, the disk goes on without a journal:
// the store acknowledges.
func (d *Disk) beginJournal(head *format.Head, believed bool) error {
	j := d.opts.Journal
	if head.Mode == format.ModeBounded {
		d.bounding.bound = time.Duration(head.BoundMS) * time.Millisecond
	}
	switch {
	case j == nil && d.bounding.bound > 0:
		d.opts.Logger.Warn("no journal: flushes of a bounded disk wait for the store",
			"disk", d.path)
		return nil
	case j == nil || (d.bounding.bound == 0 && !believed):
		return nil
	}
	own, err := sessionOf(head)
	if err != nil {
		return err
	}
	err = j.Begin(d.uid, own)
	if errs.Is(err, errs.Conflict) {
		return err
	}
	if err != nil {
		d.opts.Logger.Warn("no journal: flushes of a bounded disk wait for the store",
			"disk", d.path, "error", err.Error())
		return nil
	}
	if d.bounding.bound > 0 {
		d.bounding.journal = d.runJournal(j)
		d.setBoundLocked(d.bounding.bound) // nobody else knows of the disk yet
	}
	return nil
}

// clearJournal empties the journal after a clean close: nothing in it is needed any more.
func (d *Disk) clearJournal() {
	d.pipe.mu.RLock()
	last := d.bounding.journal.last
	d.pipe.mu.RUnlock()
	if last != nil {
		d.clear(last)
	}
}

// logLocked appends a write to the journal, in the order of the batches.
func (d *Disk) logLocked(b *batch, r journal.Record) {
	if d.bounding.journal.active == nil || r.Count == 0 {
		return
	}
	r.Seq = d.pipe.nextSeq // only one batch forms at a time, and it gets that when it is sealed
	b.logged += len(r.Blocks)
	d.bounding.journal.active.Append(r)
}

// journalShareLocked reports whether the forming batch holds so much of the journal that it must
// go.
func (d *Disk) journalShareLocked() bool {
	return d.bounding.journal.active != nil &&
		int64(d.pipe.forming.logged) >= d.bounding.journal.active.Stats().Size/sealShare
}

// oldestLocked returns when the oldest write that the store lacks was made.
func (d *Disk) oldestLocked() (time.Time, bool) {
	switch {
	case len(d.pipe.queue) > 0:
		return d.pipe.queue[0].since, true
	case d.pipe.forming != nil:
		return d.pipe.forming.since, true
	}
	return time.Time{}, false
}

// overdueLocked reports whether a write that the store lacks is older than the bound.
func (d *Disk) overdueLocked() bool {
	at, ok := d.oldestLocked()
	return ok && time.Since(at) > d.bounding.bound
}

// journalMustWaitLocked returns what to wait for before a write of n bytes, or nil.
func (d *Disk) journalMustWaitLocked(n int) <-chan struct{} {
	if d.bounding.journal.active == nil {
		return nil
	}
	if err := d.bounding.journal.active.Err(); err != nil {
		d.dropJournalLocked(d.bounding.journal.active, err)
		return nil
	}
	var changed <-chan struct{} = d.pipe.room
	if !d.overdueLocked() {
		var ok bool
		if ok, changed = d.bounding.journal.active.Room(n); ok {
			return nil
		}
	}
	if d.pipe.forming != nil { // it may be what holds the journal's space, or is overdue
		d.pipe.flushWanted = true
		d.pumpLocked()
	}
	return changed
}

// dropJournalLocked goes on without a journal that has failed. What the journal holds stays true:
// its records are in write order, up to where it failed. A recovery skips those of batches that
// have reached the store.
func (d *Disk) dropJournalLocked(j *journal.Journal, err error) {
	if d.bounding.journal.active != j {
		return
	}
	d.bounding.journal.active = nil
	d.opts.Logger.Warn("the journal failed: flushes of a bounded disk wait for the store",
		"disk", d.path, "error", err.Error())
}

// flushJournalAndUnlock is Flush of a disk with a journal.
func (d *Disk) flushJournalAndUnlock(ctx context.Context, f *flushing) error {
	j, last := d.bounding.journal.active, d.lastLocked()
	d.pipe.mu.Unlock()
	sctx, cancel := d.stall(ctx)
	defer cancel()
	if last != nil {
		err := j.Sync(sctx)
		f.lap(inJournal)
		if j.Err() != nil {
			d.pipe.mu.Lock()
			d.dropJournalLocked(j, j.Err())
			return d.flushAndUnlock(ctx, f)
		}
		if err != nil {
			return err
		}
	}
	d.counters.flushes.Add(1)
	d.pipe.mu.Lock()
	defer f.lapIfWaited(inQueue)
	for d.pipe.err == nil && last != nil && d.overdueLocked() && !last.isCommitted() {
		d.pipe.flushWanted = d.pipe.forming != nil
		d.pumpLocked()
		room := d.pipe.room
		d.pipe.mu.Unlock()
		select {
		case <-room:
		case <-d.pipe.stopped:
		case <-sctx.Done():
			return d.stalled(sctx, "flush")
		}
		d.pipe.mu.Lock()
	}
	defer d.pipe.mu.Unlock()
	if d.pipe.err != nil && (last == nil || !last.isCommitted()) {
		return d.pipe.err
	}
	return nil
}

// lastLocked returns the newest batch in memory, or nil.
func (d *Disk) lastLocked() *batch {
	if n := len(d.pipe.queue); d.pipe.forming == nil && n > 0 {
		return d.pipe.queue[n-1]
	}
	return d.pipe.forming
}

func (b *batch) isCommitted() bool {
	select {
	case <-b.committed:
		return true
	default:
		return false
	}
}
