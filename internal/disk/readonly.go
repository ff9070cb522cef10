package disk

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/store"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// ReadOnly reads a disk as it was at a map checkpoint. Any number of them may be open beside a
// writer, which they don't disturb and whose later writes they don't see.
//
// It holds a pin, which it renews: what it reads is not collected, whatever becomes of the disk
// meanwhile. The pin is lost if the store can't be reached for too long, or somebody removes it.
// Then reads fail as Conflict: what they would find might be gone.
type ReadOnly struct {
	reader   *reader
	size     int64
	tasks    *tasks
	store    *store.Client
	counters *counters
	pin      *pin // nil: unpinned
}

var _ Device = (*ReadOnly)(nil)

// ReadOnlyOptions has what a reader can use.
type ReadOnlyOptions struct {
	Cache *cache.Cache // a local frame cache, or nil
	Key   KEK          // unwraps the keys of an encrypted disk; nil for one in the clear
	// Unpinned reads without a pin, where the caller may not write to the store. A collector that
	// runs meanwhile may take what is being read away. Reads then fail as Corrupt.
	Unpinned bool
	// Holder names the reader in its pin, for people.
	Holder string
	Tuning
}

// OpenReadOnly opens a named checkpoint of the disk at path. Without a name it opens the newest
// map, which for an open disk is up to a minute old.
func OpenReadOnly(
	ctx context.Context, store blob.Store, path, checkpoint string, opts ReadOnlyOptions,
) (*ReadOnly, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	opts.Tuning = opts.withDefaults(opts.Cache != nil)
	codec, err := format.NewCodec()
	if err != nil {
		return nil, err
	}
	client := newClient(store, opts.Tuning)
	src := &pageSource{store: client, codec: codec}
	m, err := readableMap(ctx, client, src, path, checkpoint, opts.Key)
	if err != nil {
		return nil, err
	}
	var p *pin
	if !opts.Unpinned {
		// Everything first: what was read may be on its way to be deleted, what is read again can't
		// be.
		if p, err = takePin(ctx, client, path, opts.Holder, opts.PinLease); err != nil {
			return nil, err
		}
		if m, err = readableMap(ctx, client, src, path, checkpoint, opts.Key); err == nil {
			err = p.narrow(ctx, m)
		}
	}
	var r *ReadOnly
	if err == nil {
		r, err = newReadOnly(ctx, src, m, p, &opts)
	}
	if err != nil {
		if p != nil {
			p.release(ctx)
		}
		return nil, err
	}
	return r, nil
}

// readableMap returns the map to read, without a root if it is empty. It sets what a page source
// needs for it.
func readableMap(
	ctx context.Context, client *store.Client, src *pageSource, path, checkpoint string, key KEK,
) (*format.PinnedMap, error) {
	m, keys, err := mapOf(ctx, client, path, checkpoint)
	if err != nil {
		return nil, err
	}
	src.lineage = m.Lineage
	src.keys, err = keys(ctx, key)
	return m, err
}

func newReadOnly(
	ctx context.Context, src *pageSource, m *format.PinnedMap, p *pin, opts *ReadOnlyOptions,
) (*ReadOnly, error) {
	root, err := src.loadRoot(ctx, m.Root)
	if err != nil {
		return nil, err
	}
	r := &ReadOnly{size: m.Size, tasks: newTasks(ctx), store: src.store, counters: &counters{},
		pin: p}
	r.reader = newReader(src, opts.Cache, r.tasks, r.counters, opts.Tuning)
	r.reader.setSize(m.Size)
	distance := 0
	if m.Root != nil {
		distance = m.Root.Lineage
	}
	if err := r.reader.use(root, distance, opts.MapBytes); err != nil {
		r.tasks.stop()
		return nil, err
	}
	r.tasks.spawn(func(ctx context.Context) { r.reader.idleLoop(ctx, opts.FrameIdle) })
	if p != nil {
		r.tasks.spawn(p.keep)
	}
	return r, nil
}

// Size returns the disk's size in bytes.
func (r *ReadOnly) Size() int64 { return r.size }

// ReadAt fills p from off.
func (r *ReadOnly) ReadAt(ctx context.Context, p []byte, off int64) error {
	if off < 0 || off > r.size-int64(len(p)) {
		return errs.New(errs.Invalid, "range of %d bytes at %d is outside the disk of %d", len(p),
			off, r.size)
	}
	if err := r.pinned(); err != nil {
		return err
	}
	r.counters.readBytes.Add(uint64(len(p)))
	err := readAligned(p, off, func(p []byte, block uint64) error {
		return r.reader.read(ctx, p, block)
	})
	if lost := r.pinned(); errs.Is(err, errs.Corrupt) && lost != nil {
		return lost
	}
	return err
}

// pinned returns why what is to be read may be gone, or nil.
func (r *ReadOnly) pinned() error {
	if r.pin == nil {
		return nil
	}
	return r.pin.valid()
}

func (r *ReadOnly) denied() error {
	return errs.New(errs.Denied, "the disk is opened read-only").WithRemedy("fork it, or attach it")
}

// WriteAt fails as Denied.
func (r *ReadOnly) WriteAt(context.Context, []byte, int64) error { return r.denied() }

// Trim fails as Denied.
func (r *ReadOnly) Trim(context.Context, int64, int64) error { return r.denied() }

// Zero fails as Denied.
func (r *ReadOnly) Zero(context.Context, int64, int64) error { return r.denied() }

// Flush has nothing to do.
func (r *ReadOnly) Flush(context.Context) error { return nil }

// Stats returns what was counted since it was opened.
func (r *ReadOnly) Stats() Stats { return r.counters.stats(r.store.Counts()) }

// releaseWait bounds how long a reader that is closed tries to remove its pin. One that stays ends
// with its lease.
const releaseWait = 10 * time.Second

// Close ends it. It returns when nothing of it runs any more.
func (r *ReadOnly) Close() error {
	ctx := context.WithoutCancel(r.tasks.ctx)
	r.tasks.stop()
	if r.pin != nil {
		ctx, cancel := context.WithTimeout(ctx, releaseWait)
		defer cancel()
		r.pin.release(ctx)
	}
	return nil
}
