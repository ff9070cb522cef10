package disk

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/store"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Disk is an attached disk: the one writer of its epoch.
//
// Writes gather in one forming batch. A flush, its age or its size seals it. A few sealed batches
// are uploaded at a time. They are committed strictly in order: applied to the map, then
// acknowledged, then dropped from memory. A read looks at the forming batch, then at the sealed
// ones from new to old, then at the map.
//
// With a log store, acknowledged batches stay in memory, in stages, until they are in the disk's
// own store. Only then are they applied to the map. A read looks at the stages before the map.
//
// Each part of the state has an owner, whose comment says who may touch it. Lock order: the
// pipeline's commitMu, its mu, then any one of the others. No I/O happens under any of them.
type Disk struct {
	path  string
	uid   format.ID
	epoch uint64
	opts  AttachOptions
	keys  diskKeys

	store    *store.Client
	logStore *store.Client // where log objects go; equal to store unless a log store is configured
	logPlace *logPlace     // nil: the log is beside all other objects
	reader   *reader
	counters *counters
	tasks    *tasks
	memory   memory

	head     headState
	pipe     pipeline
	mapping  mapWriting
	packing  packing
	unproven unproven // written and acknowledged, and not shown by the store yet
	staging  staging
	bounding bounding
	use      usage
}

// usage is what revalidation and reads tell each other.
type usage struct {
	busy  atomic.Bool // read or written since the last revalidation
	stale atomic.Bool // the store could not confirm for too long that we are the writer
}

var _ Device = (*Disk)(nil)

// Size returns the disk's size in bytes.
func (d *Disk) Size() int64 { return int64(d.reader.blocks.Load()) * BlockSize }

// Stopped returns a channel that is closed when the disk has stopped for good. It was closed or
// abandoned, or a newer writer took over, or stored bytes are corrupt, or the store refuses access.
// Err says which.
func (d *Disk) Stopped() <-chan struct{} { return d.pipe.stopped }

// Err returns why the disk stopped, or nil while it serves.
func (d *Disk) Err() error {
	d.pipe.mu.RLock()
	defer d.pipe.mu.RUnlock()
	return d.pipe.err
}

// Head returns the head as this session last wrote or read it.
func (d *Disk) Head() format.Head {
	head, _ := d.head.get()
	return head
}

// Cache returns the frame cache in use, or nil.
func (d *Disk) Cache() *cache.Cache { return d.opts.Cache }

// Stats returns what was counted since attach.
func (d *Disk) Stats() Stats {
	s := d.counters.stats(d.store.Counts())
	d.pipe.mu.RLock()
	s.DirtyBytes, s.Acknowledges = d.pipe.dirty, AcknowledgedByStore
	if d.logPlace != nil {
		s.LogStore = d.logPlace.at.URL
		for _, g := range d.staging.stages {
			s.StagedBytes += int64(g.b.blocks()) * BlockSize
		}
	}
	if at, ok := d.oldestLocked(); ok {
		s.OldestWrite = time.Since(at)
	}
	if d.bounding.journal.active != nil {
		js := d.bounding.journal.active.Stats()
		s.Journal = &js
	}
	if d.bounding.journal.acknowledgesLocked(d.pipe.acked) {
		s.Acknowledges = AcknowledgedByJournal
	}
	d.pipe.mu.RUnlock()
	s.MapBytes, s.UnprovenBytes = d.reader.m.Bytes(), d.unproven.size()
	s.Uploads = d.logStore.Uploads()
	s.Stall, _ = d.Stalled()
	if d.opts.Cache != nil {
		cs := d.opts.Cache.Stats()
		s.Cache = &cs
	}
	return s
}

// fail stops the disk for good. The first reason stays.
func (d *Disk) fail(err error) {
	d.pipe.mu.Lock()
	first := d.pipe.err == nil
	if first {
		d.pipe.err = err
		close(d.pipe.stopped)
	}
	d.pipe.mu.Unlock()
	if first && errs.Is(err, errs.Fenced) {
		d.tasks.cancel() // a fenced writer leaves the store alone
		d.opts.Logger.Warn("disk fenced", "disk", d.path, "epoch", d.epoch, "error", err.Error())
	}
}

// mutableLocked returns why a mutation can't be accepted, or nil.
func (d *Disk) mutableLocked() error {
	if d.pipe.err != nil {
		return d.pipe.err
	}
	if d.pipe.closing {
		return errs.New(errs.Invalid, "disk %s is closed", d.path)
	}
	return nil
}

func (d *Disk) checkRange(off, length int64) error {
	if size := d.Size(); off < 0 || length < 0 || off > size-length {
		return errs.New(errs.Invalid, "range of %d bytes at %d is outside the disk of %d", length,
			off, size)
	}
	return nil
}

// stall returns a context that ends when the store was waited for as long as the stall bound, for a
// request of the device's user.
func (d *Disk) stall(ctx context.Context) (context.Context, context.CancelFunc) {
	release := d.store.Waiting()
	ctx, cancel := d.store.Within(ctx, d.opts.StallTimeout)
	return ctx, func() {
		release()
		cancel()
	}
}

// stalled is the error of a request that the end of such a context has ended. A full store is
// Exhausted, one that refuses us Denied.
func (d *Disk) stalled(ctx context.Context, what string) error {
	if !store.WaitedOut(ctx) {
		return errs.Wrap(errs.Unavailable, context.Cause(ctx), "%s given up", what)
	}
	kind, reason := errs.Unavailable, "no answer"
	remedy := "check the object store and the way to it"
	if s, _ := d.Stalled(); s != nil {
		kind, reason, remedy = s.Kind, s.Reason, s.Remedy
	}
	return errs.New(kind, "%s: the store did not take all writes within %v: %s", what,
		d.opts.StallTimeout, reason).
		WithRemedy("%s; the data stays in memory and goes on being sent", remedy)
}

// Stalled returns what the store has not completed for StallAfter or longer, or nil if it does what
// it is asked for. The channel is closed when that changes. During a stall, writes are kept in
// memory, up to DirtyBytes. Whoever needs the store waits, up to StallTimeout. A stall ends by
// itself.
func (d *Disk) Stalled() (*Stall, <-chan struct{}) { return d.store.Stalled() }

// HoldIO(true) suspends StallTimeout: use it while every user of the device is frozen. No request
// fails meanwhile because the store was waited for too long. Idempotent.
func (d *Disk) HoldIO(on bool) { d.store.HoldIO(on) }

// probeStore makes a small request in the background, whose answer ends a stall: for the head, or
// for the identity of the log.
func (d *Disk) probeStore(ofLog bool) {
	d.tasks.spawn(func(ctx context.Context) {
		if ofLog {
			_, _ = d.logStore.Exists(ctx, identityKey(d.logPlace.uid))
			return
		}
		_ = d.revalidate(ctx) // it stops the disk where it must
	})
}

// Abandon drops the disk without touching the store: unflushed writes are lost, and the head stays
// open until the next attach. It returns when nothing of the disk runs any more. It may be called
// at any time, also twice or after Close.
func (d *Disk) Abandon() {
	d.fail(errs.New(errs.Invalid, "disk %s is detached", d.path))
	d.detach()
}

// detach ends all background work.
func (d *Disk) detach() {
	d.tasks.stop()
	d.store.StopWatching()
	if d.logPlace != nil {
		d.logPlace.close()
	}
	d.pipe.mu.Lock()
	d.pipe.detached = true
	d.pipe.mu.Unlock()
}

// touch notes that the disk is in use.
func (d *Disk) touch() {
	if !d.use.busy.Load() {
		d.use.busy.Store(true)
	}
}

func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }
