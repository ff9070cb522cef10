package disk

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/journal"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// What acknowledges flushes can change while the disk is in use. Two rules make that safe at any
// crash:
//
//   - The journal acknowledges nothing before the head says bounded: who attaches next knows that
//     it is needed.
//   - The head says durable only after the store has all that the journal has acknowledged.

// bounding is the state of how flushes are acknowledged. The pipeline's lock guards the journal's
// use, bound, sealEvery and recovering. Whoever has the turn may change the mode, and may use
// unsure.
type bounding struct {
	journal   journalUse
	bound     time.Duration // of mode bounded; 0: the disk is durable
	sealEvery time.Duration // age at which unflushed writes are uploaded anyway
	// the journal is being written to the store; no map is written meanwhile
	recovering bool

	changed signal // wakes sealLoop: sealEvery is another
	turn    turn
	unsure  bool // the head may have another mode than is known here
}

func newBounding(sealEvery time.Duration) bounding {
	return bounding{sealEvery: sealEvery, changed: newSignal(), turn: newTurn()}
}

// journalUse is a session's use of a journal.
type journalUse struct {
	active *journal.Journal // logged to; nil: flushes are acknowledged by the store
	// the first batch that is in it whole; the store acknowledges those before
	from uint64

	// storeOnly makes the store acknowledge, although the journal is logged to: the head may say
	// durable by now, or will soon.
	storeOnly bool

	last *journal.Journal   // the one that was last logged to
	end  context.CancelFunc // ends its Run
	done chan struct{}      // closed when that has ended
}

// SetBound changes the mode of the disk, which is in use. With a bound, a local journal
// acknowledges flushes, and the store lacks no write older than that. With a bound of 0, only the
// store acknowledges them. When it returns nil the head says so. For 0, the store then has every
// write acknowledged before.
//
// For a bound, j is the journal; nil: the one in use, or that the disk was attached with. It stays
// the caller's to close, after the disk or after SetBound with 0.
//
// When it returns an error the disk goes on, and flushes keep the promise of both modes. SetBound
// can be called again. Errors: Invalid (no such bound; no journal, or too small a one). Unsupported
// (encrypted). Conflict (j is another disk's, or the disk uses another one). Unavailable.
func (d *Disk) SetBound(ctx context.Context, bound time.Duration, j *journal.Journal) error {
	head := d.Head()
	if err := MayHaveBound(&head, bound); err != nil {
		return err
	}
	if err := d.bounding.turn.take(ctx, "another change of the disk's mode"); err != nil {
		return err
	}
	defer d.bounding.turn.give()
	if d.hasBound(bound, j) {
		return nil
	}
	var err error
	if bound == 0 {
		err = d.beDurable(ctx)
	} else {
		err = d.beBounded(ctx, bound, j)
	}
	if err != nil {
		return errs.Wrap(errs.KindOf(err), err, "change the mode of disk %s", d.path).
			WithRemedy("%s", errs.RemedyOf(err))
	}
	return nil
}

// hasBound reports whether the disk has that mode already. It doesn't count as such after a change
// whose outcome is not known.
func (d *Disk) hasBound(bound time.Duration, j *journal.Journal) bool {
	h := d.Head()
	if d.bounding.unsure || time.Duration(h.BoundMS)*time.Millisecond != bound {
		return false
	}
	d.pipe.mu.RLock()
	defer d.pipe.mu.RUnlock()
	return d.pipe.err == nil && !d.pipe.closing &&
		(bound == 0 || d.bounding.journal.active != nil &&
			(j == nil || j == d.bounding.journal.active))
}

func (d *Disk) beDurable(ctx context.Context) error {
	d.pipe.mu.Lock()
	before := d.bounding.journal.storeOnly
	d.bounding.journal.storeOnly = true
	d.pipe.mu.Unlock()
	if err := d.flushStore(ctx); err != nil {
		d.pipe.mu.Lock()
		d.bounding.journal.storeOnly = before // the head is what it was
		d.pipe.mu.Unlock()
		return err
	}
	// From here on it stays so, also if the swap fails: it may arrive later on.
	if err := d.writeBound(ctx, 0); err != nil {
		return err
	}
	d.pipe.mu.Lock()
	use := d.bounding.journal
	d.bounding.journal, d.bounding.bound = journalUse{}, 0
	d.bounding.sealEvery = d.opts.SealInterval
	d.pipe.mu.Unlock()
	if use.last == nil {
		return nil
	}
	// Flushes that are about to ask the journal are answered: nothing is appended any more.
	if use.active != nil {
		_ = use.active.Sync(ctx) // if it fails, they ask the store
	}
	use.stop()
	d.clear(use.last)
	return nil
}

func (d *Disk) beBounded(ctx context.Context, bound time.Duration, j *journal.Journal) error {
	d.pipe.mu.Lock()
	use := d.bounding.journal
	tighter := use.active != nil && bound < d.bounding.bound
	if tighter {
		d.bounding.bound = bound
	}
	d.pipe.mu.Unlock()
	switch {
	case use.active != nil && j != nil && j != use.active:
		return errs.New(errs.Conflict, "the disk has another journal in use").
			WithRemedy("keep that, or make the disk durable first")
	case use.active == nil:
		return d.beginBounded(ctx, bound, j, use)
	case tighter:
		if err := d.flushStore(ctx); err != nil { // what is older than the new bound allows
			return err
		}
	}
	if err := d.writeBound(ctx, bound); err != nil {
		return err
	}
	d.pipe.mu.Lock()
	d.bounding.journal.storeOnly = false
	d.setBoundLocked(bound)
	d.pipe.mu.Unlock()
	return nil
}

// beginBounded begins to use a journal. The first batch that is logged is a new one. The journal
// acknowledges flushes once the store has all batches before it. So a recovery takes up the log
// where the store's ends, or does without the journal.
func (d *Disk) beginBounded(
	ctx context.Context, bound time.Duration, j *journal.Journal, old journalUse,
) error {
	if j == nil {
		j = d.opts.Journal
	}
	if j == nil {
		return errs.New(errs.Invalid,
			"mode bounded needs a journal, and the disk was attached without one").
			WithRemedy("name one")
	}
	// Writes that are under way are of up to that, unless the disk has known the journal all along.
	if least := writeGroup * BlockSize; j != d.opts.Journal && j.MaxContent() < least {
		return errs.New(errs.Invalid,
			"the journal is too small to be begun while the disk is in use").
			WithRemedy("use one of at least %d KiB", 4*least>>10+64)
	}
	old.stop()
	head := d.Head()
	own, err := sessionOf(&head)
	if err != nil {
		return err
	}
	if err := j.Begin(d.uid, own); err != nil {
		return err
	}
	use := d.runJournal(j)
	err = d.writeBound(ctx, bound)
	if err == nil {
		err = d.useJournal(use, bound)
	}
	if err == nil {
		return nil
	}
	use.stop()
	if !errs.Is(err, errs.Unavailable) {
		// else the head may say bounded yet, and the next attach asks for this one
		d.clear(j)
	}
	return err
}

// useJournal logs the next batch, and all that follow, to a journal.
func (d *Disk) useJournal(use journalUse, bound time.Duration) error {
	d.pipe.mu.Lock()
	defer d.pipe.mu.Unlock()
	if err := d.mutableLocked(); err != nil {
		return err
	}
	if d.pipe.forming != nil {
		d.sealLocked()
		d.pumpLocked()
	}
	use.from = d.pipe.nextSeq
	d.bounding.journal = use
	d.setBoundLocked(bound)
	return nil
}

// setBoundLocked sets the bound, and lets writes be uploaded well within it.
func (d *Disk) setBoundLocked(bound time.Duration) {
	d.bounding.bound = bound
	d.bounding.sealEvery = min(d.opts.SealInterval, bound/sealShare)
	d.bounding.changed.notify()
}

// writeBound writes the mode into the head, unless the disk is being closed.
func (d *Disk) writeBound(ctx context.Context, bound time.Duration) error {
	d.bounding.unsure = true
	err := d.changeHead(ctx, func(h *format.Head) { _ = setBound(h, bound) }) // it was tried before
	if err == nil {
		d.bounding.unsure = false
	}
	return err
}

// changeHead changes the head of a disk in use.
func (d *Disk) changeHead(ctx context.Context, change func(*format.Head)) error {
	if err := d.mapping.take(ctx); err != nil {
		return err
	}
	defer d.mapping.give()
	d.pipe.mu.RLock()
	err := d.mutableLocked()
	d.pipe.mu.RUnlock()
	if err != nil {
		return err
	}
	return d.updateHead(ctx, change)
}

// runJournal starts the task that writes a journal out.
func (d *Disk) runJournal(j *journal.Journal) journalUse {
	use := journalUse{active: j, last: j, done: make(chan struct{})}
	ctx, cancel := context.WithCancel(d.tasks.ctx)
	use.end = cancel
	if !d.tasks.spawn(func(context.Context) {
		defer close(use.done)
		j.Run(ctx)
	}) {
		close(use.done) // the disk is being detached
	}
	return use
}

// stop ends what runJournal has started.
func (u *journalUse) stop() {
	if u.end == nil {
		return
	}
	u.end()
	<-u.done
}

// clear empties a journal of which nothing is needed any more.
func (d *Disk) clear(j *journal.Journal) {
	if err := j.Clear(d.uid); err != nil {
		d.opts.Logger.Warn("a journal that isn't needed any more could not be emptied",
			"disk", d.path, "error", err.Error())
	}
}

// acknowledgesLocked reports whether the journal acknowledges flushes.
func (u *journalUse) acknowledgesLocked(acked uint64) bool {
	return u.active != nil && !u.storeOnly && acked+1 >= u.from
}
