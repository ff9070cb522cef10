package disk

import (
	"context"
	"reflect"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Attach makes the caller the one writer of the disk at path in the pool. After a clean close it
// costs one GET and one swap of the head, and the map root beside the swap. After a crash it also
// replays the log from the newest map on, and ends it with a fence. On a disk with a log store it
// first checks that this is the right one, by two requests there.
//
// Errors: NotFound (no disk). Fenced (Generation is older than the head's). Conflict (another
// Holder has the same Generation, or the log store is another disk's). Denied (it is encrypted, and
// Key is not its key; nothing has changed). Unsupported, Corrupt, Unavailable.
//
// An attach that fails after the swap of the head leaves it open. Attaching again, also with the
// same Generation and Holder, is safe.
func Attach(ctx context.Context, store blob.Store, path string, opts AttachOptions) (*Disk, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	if opts.Generation == 0 {
		return nil, errs.New(errs.Invalid, "attach %s without a generation", path).
			WithRemedy("use the head's generation plus one")
	}
	opts.Tuning = opts.withDefaults(opts.Cache != nil)
	opts.Logger = discardLogger(opts.Logger)
	codec, err := format.NewCodec()
	if err != nil {
		return nil, err
	}
	d := &Disk{
		path: path, opts: opts, store: newClient(store, opts.Tuning), counters: &counters{},
		tasks: newTasks(ctx), pipe: newPipeline(), mapping: newMapWriting(), packing: newPacking(),
		unproven: newUnproven(), staging: newStaging(), bounding: newBounding(opts.SealInterval),
	}
	d.logStore = d.store
	d.store.Watch(opts.StallAfter, path, opts.Logger, d.probeStore)
	if err := d.attach(ctx, codec); err != nil {
		d.tasks.stop()
		d.store.StopWatching()
		d.leaveLog()
		return nil, err
	}
	return d, nil
}

func (d *Disk) attach(ctx context.Context, codec *format.Codec) error {
	head, etag, err := d.readHead(ctx)
	if err != nil {
		return err
	}
	var root *format.Root
	var clean, believed bool
	for try := 0; ; try++ {
		if err := mayAttach(d.path, head, &d.opts); err != nil {
			return err
		}
		if err := d.prepareReader(ctx, head, codec); err != nil {
			return err
		}
		if err := d.useLog(ctx, head); err != nil {
			return err
		}
		clean = head.State == format.StateClosed
		next := claim(head, &d.opts)
		if believed, err = d.claimJournal(head, next); err != nil {
			return errs.Wrap(errs.KindOf(err), err, "attach %s", d.path)
		}
		began := time.Now()
		cur, curTag, r, err := d.swapAndLoad(ctx, next, etag)
		d.timed(partSwapHead, "", began)
		if err == nil {
			head, etag, root = next, curTag, r
			break
		}
		if !errs.Is(err, errs.Conflict) || try == maxHeadRaces {
			return errs.Wrap(errs.KindOf(err), err, "attach %s", d.path)
		}
		head, etag = cur, curTag
	}
	if err := d.begin(head, etag, root); err != nil {
		return err
	}
	d.reader.m.Begin(head.Log)
	if !clean {
		began := time.Now()
		err := d.recoverAll(ctx, head.Log, believed)
		d.timed(partReplay, "", began)
		if err != nil {
			return errs.Wrap(errs.KindOf(err), err, "recover %s", d.path)
		}
		d.wakeMapWriter()
	}
	if err := d.beginJournal(head, believed); err != nil {
		return errs.Wrap(errs.KindOf(err), err, "attach %s", d.path)
	}
	if d.opts.BootWindow > 0 {
		d.reader.trace = &bootTrace{seen: make(map[uint64]uint64)}
	}
	if key, ok := traceOf(head); ok && !d.opts.Prepared.warmed() {
		d.tasks.spawn(func(ctx context.Context) { warmTrace(ctx, d.store, key, d.reader) })
	}
	d.startBackground()
	return nil
}

func (d *Disk) readHead(ctx context.Context) (*format.Head, blob.ETag, error) {
	defer d.timed(partReadHead, "", time.Now())
	return d.store.LoadHead(ctx, d.path)
}

// begin sets what the disk goes on from: the head, which is ours now, and the map under it.
func (d *Disk) begin(head *format.Head, etag blob.ETag, root *format.Root) error {
	d.head.set(head, etag)
	d.epoch = head.Epoch
	d.reader.frames.heal = d.healUnproven
	if d.logPlace != nil {
		d.logPlace.at = *head.LogStore
		d.tasks.spawn(d.destageLoop)
	}
	distance := 0
	if head.Root != nil {
		distance = head.Root.Lineage
	}
	return d.reader.use(root, distance, d.opts.MapBytes)
}

// recoverAll recovers the log, and also the journal if that is believed.
func (d *Disk) recoverAll(ctx context.Context, pos format.Position, believed bool) error {
	rec := &recovery{disk: d}
	last, err := rec.run(ctx, pos)
	if err == nil && believed {
		err = d.recoverJournal(ctx, pos, last)
	}
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.Go(func() error { return rec.proveFences(ctx) })
	// A hole may be one that a collector made, long after somebody else took over.
	err = d.revalidate(ctx)
	if unproven := g.Wait(); err == nil {
		err = unproven
	}
	return err
}

// mayAttach returns nil if the rule of generations allows the attach; see AttachOptions.
func mayAttach(path string, h *format.Head, o *AttachOptions) error {
	switch {
	case o.Generation < h.Generation:
		return errs.New(errs.Fenced,
			"disk %s: attach with generation %d, but %q attached it with generation %d (%s)",
			path, o.Generation, h.Holder, h.Generation, h.State).
			WithRemedy("stop this one; the machine belongs to generation %d", h.Generation)
	case o.Generation == h.Generation && h.Holder != "" && h.Holder != o.Holder:
		return errs.New(errs.Conflict, "disk %s: generation %d belongs to %q (%s), not to %q",
			path, h.Generation, h.Holder, h.State, o.Holder).
			WithRemedy("attach with generation %d or newer", h.Generation+1)
	}
	return nil
}

// claim returns the head that makes us the writer. After a clean close nothing of older logs is
// left to replay, so that the position moves on to our own log.
func claim(h *format.Head, o *AttachOptions) *format.Head {
	next := *h
	next.Epoch++
	next.Generation, next.Holder, next.State = o.Generation, o.Holder, format.StateOpen
	next.Nonce, next.Session, next.Updated = newNonce(), newNonce(), now()
	next.Packed = 0
	if h.State == format.StateClosed {
		next.Log = format.Position{Epoch: next.Epoch, Seq: 1}
	}
	if h.LogStore != nil {
		next.LogStore = h.LogStore.With(format.LogRun{Epoch: next.Epoch, Session: next.Session},
			next.Log.Epoch)
	}
	return &next
}

// prepareReader builds the reader for a head's lineage, with what was prepared for this very disk.
// When the head changes under an attach the disk may have grown, or be another one.
//
// Here too the disk's key is asked for: a wrong one is refused before anything has changed.
func (d *Disk) prepareReader(ctx context.Context, head *format.Head, codec *format.Codec) error {
	if d.reader != nil && d.Size() == head.Size &&
		slices.Equal(d.reader.pages.lineage, head.Lineage) &&
		reflect.DeepEqual(d.keys.unlocked, head.Encryption) {
		return nil
	}
	if err := sealedMode(head); err != nil {
		return err
	}
	keys, err := Unlock(ctx, head, d.opts.Key)
	if err != nil {
		return err
	}
	d.keys.unlocked = head.Encryption
	uid, err := parseUID(head.UID)
	if err != nil {
		return err
	}
	d.uid, d.keys.own = uid, keys[head.UID]
	pages := &pageSource{store: d.store, codec: codec, lineage: head.Lineage, keys: keys}
	if p := d.opts.Prepared; p != nil && p.head.UID == head.UID {
		pages.stored = p.takePages()
	}
	d.reader = newReader(pages, d.opts.Cache, d.tasks, d.counters, d.opts.Tuning)
	d.reader.setSize(head.Size)
	return nil
}

// swapAndLoad swaps the head and reads the map root at the same time.
func (d *Disk) swapAndLoad(
	ctx context.Context, next *format.Head, etag blob.ETag,
) (*format.Head, blob.ETag, *format.Root, error) {
	root, known := d.opts.Prepared.rootFor(next)
	g, gctx := errgroup.WithContext(ctx)
	if !known {
		d.reader.pages.prefetch(d.tasks, next.Root)
		g.Go(func() (err error) {
			root, err = d.reader.pages.loadRoot(gctx, next.Root)
			return err
		})
	}
	cur, curTag, err := d.store.SwapHead(ctx, d.path, next, etag)
	if rerr := g.Wait(); err == nil {
		err = rerr
	}
	return cur, curTag, root, err
}
