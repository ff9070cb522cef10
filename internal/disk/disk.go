package disk

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/store"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Disk is an attached disk: the one writer of its epoch.
//
// Writes gather in one forming batch. A flush, its age or its size seals it; sealed batches are uploaded a
// few at a time and committed strictly in order: applied to the map, then acknowledged, then dropped from
// memory. A read looks at the forming batch, then the sealed ones from new to old, then the map.
// Of a disk with a log store what was acknowledged stays in memory, in stages, until it is in the disk's own store;
// only then it is applied to the map. A read looks at the stages before the map.
//
// Lock order: commitMu, mu, the map's lock. No I/O happens under any of them.
type Disk struct {
	store    *store.Client
	logStore *store.Client // where log objects go; equal to store unless a log store is configured
	second   *logPlace     // nil: the log is beside all other objects
	path     string
	opts     AttachOptions
	log      *slog.Logger
	uid      format.ID
	epoch    uint64
	size     atomic.Int64
	own      *format.DataKey    // encrypts what is written; nil: nothing does
	unlocked *format.Encryption // what the keys came from, while attaching
	rd       *reader
	counters *counters
	tasks    *tasks
	pool     blockPool
	bodies   bodyPool
	tables   tablePool
	kick     chan struct{} // wakes the map checkpointer
	stop     chan struct{} // closed when the disk stopped for good
	turn     chan struct{} // one token: who holds it may write the map and the head
	mapN     uint32        // of map versions; with the turn

	packTurn chan struct{} // one token: who holds it may write packed segments
	packKick chan struct{} // wakes the background compaction
	packed   segNumbers

	unproven  unproven      // written, acknowledged, and not seen yet
	proofKick chan struct{} // wakes the proof of that

	stageTurn chan struct{} // one token: who holds it may destage
	stageKick chan struct{} // wakes the background destaging
	replaying *replayed     // by recovery, alone, as are the fences
	fences    []unprovenObject

	headMu sync.Mutex
	head   format.Head
	etag   blob.ETag

	commitMu sync.Mutex

	mu       sync.RWMutex
	forming  *batch // nil while nothing is dirty
	queue    []*batch
	stages   []*stage // in the log store and not in the map, from old to new
	started  int      // of the queue, being uploaded
	want     bool     // a flush waits for the forming batch
	nextSeq  uint64   // of the next sealed batch
	acked    uint64   // the last committed
	mapped   uint64   // the last that a written map covers
	commits  uint64   // batches that left memory
	dirty    int64    // bytes in memory
	room     chan struct{}
	err      error // why the disk stopped; sticky
	closing  bool
	detached bool

	jr         journalUse    // guarded by mu, as are the next three
	bound      time.Duration // of mode bounded
	sealEvery  time.Duration // age at which unflushed writes are uploaded anyway
	recovering bool          // the journal is being written to the store; no map is written meanwhile

	sealKick   chan struct{} // wakes the seal loop, after sealEvery has changed
	modeTurn   chan struct{} // one token: who holds it may change the mode
	modeUnsure bool          // the head may have another mode than we know; with that token

	traced     atomic.Bool // this session's boot trace is stored
	preloading atomic.Bool // map pages are being read beside an upload

	busy  atomic.Bool // read or written since the last revalidation
	stale atomic.Bool // the store could not confirm for too long that we are the writer
}

var _ Device = (*Disk)(nil)

// Size returns the disk's size in bytes.
func (d *Disk) Size() int64 { return d.size.Load() }

// Fenced returns a channel that is closed when the disk has stopped for good: because a newer writer took
// over, because stored bytes are corrupt, because the store refuses us, or by Close or Abandon. Err says
// which.
func (d *Disk) Fenced() <-chan struct{} { return d.stop }

// Err returns why the disk stopped, or nil while it serves.
func (d *Disk) Err() error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.err
}

// Head returns the head as this session last wrote or read it.
func (d *Disk) Head() format.Head {
	d.headMu.Lock()
	defer d.headMu.Unlock()
	return d.head
}

// Cache returns the frame cache in use, or nil.
func (d *Disk) Cache() *cache.Cache { return d.opts.Cache }

// Stats returns what was counted since attach.
func (d *Disk) Stats() Stats {
	s := d.counters.stats(d.store.Counts())
	d.mu.RLock()
	s.DirtyBytes, s.Acknowledges = d.dirty, AcknowledgedByStore
	if d.second != nil {
		s.LogStore = d.second.at.URL
		for _, g := range d.stages {
			s.StagedBytes += int64(g.b.blocks()) * BlockSize
		}
	}
	if at, ok := d.oldestLocked(); ok {
		s.OldestWrite = time.Since(at)
	}
	if d.jr.j != nil {
		js := d.jr.j.Stats()
		s.Journal = &js
	}
	if d.jr.acknowledgesLocked(d.acked) {
		s.Acknowledges = AcknowledgedByJournal
	}
	d.mu.RUnlock()
	s.MapBytes, s.Uploads, s.UnprovenBytes = d.rd.m.Bytes(), d.logStore.Uploads(), d.unproven.size()
	s.Stall, _ = d.Stalled()
	if d.opts.Cache != nil {
		cs := d.opts.Cache.Stats()
		s.Cache = &cs
	}
	return s
}

// fail stops the disk for good. The first reason stays.
func (d *Disk) fail(err error) {
	d.mu.Lock()
	first := d.err == nil
	if first {
		d.err = err
		close(d.stop)
	}
	d.mu.Unlock()
	if first && errs.Is(err, errs.Fenced) {
		d.tasks.cancel() // a fenced writer leaves the store alone
		d.log.Warn("disk fenced", "disk", d.path, "epoch", d.epoch, "error", err.Error())
	}
}

// mutableLocked returns why a mutation can't be accepted, or nil.
func (d *Disk) mutableLocked() error {
	if d.err != nil {
		return d.err
	}
	if d.closing {
		return errs.New(errs.Invalid, "disk %s is closed", d.path)
	}
	return nil
}

func (d *Disk) checkRange(off, length int64) error {
	if size := d.Size(); off < 0 || length < 0 || off > size-length {
		return errs.New(errs.Invalid, "range of %d bytes at %d is outside the disk of %d", length, off, size)
	}
	return nil
}

// stall returns a context that ends when the store was waited for as long as the stall bound, for a request of the
// device's user.
func (d *Disk) stall(ctx context.Context) (context.Context, context.CancelFunc) {
	release := d.store.Waiting()
	ctx, cancel := d.store.Within(ctx, d.opts.StallTimeout)
	return ctx, func() {
		release()
		cancel()
	}
}

// stalled is the error of a request that the end of such a context has ended. A full store is Exhausted, one that
// refuses us Denied.
func (d *Disk) stalled(ctx context.Context, what string) error {
	if !store.WaitedOut(ctx) {
		return errs.Wrap(errs.Unavailable, context.Cause(ctx), "%s given up", what)
	}
	kind, reason, remedy := errs.Unavailable, "no answer", "check the object store and the way to it"
	if s, _ := d.Stalled(); s != nil {
		kind, reason, remedy = s.Kind, s.Reason, s.Remedy
	}
	return errs.New(kind, "%s: the store did not take all writes within %v: %s", what, d.opts.StallTimeout, reason).
		WithRemedy("%s; the data stays in memory and goes on being sent", remedy)
}

// Abandon drops the disk without touching the store: unflushed writes are lost, and the head stays open
// until the next attach. It returns when nothing of the disk runs any more. It may be called at any time,
// also twice or after Close.
func (d *Disk) Abandon() {
	d.fail(errs.New(errs.Invalid, "disk %s is detached", d.path))
	d.detach()
}

// detach ends all background work.
func (d *Disk) detach() {
	d.tasks.stop()
	d.store.StopWatching()
	if d.second != nil {
		d.second.close()
	}
	d.mu.Lock()
	d.detached = true
	d.mu.Unlock()
}

// touch notes that the disk is in use.
func (d *Disk) touch() {
	if !d.busy.Load() {
		d.busy.Store(true)
	}
}

func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }
