package disk

import (
	"context"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// ReadOnly reads a disk as it was at a map checkpoint. Any number of them may be open beside a writer, which
// they don't disturb and whose later writes they don't see.
type ReadOnly struct {
	rd    *reader
	size  int64
	tasks *tasks
	o     *objects
}

var _ Device = (*ReadOnly)(nil)

// ReadOnlyOptions has what a reader can use.
type ReadOnlyOptions struct {
	Cache *cache.Cache // a local frame cache, or nil
	Key   KEK          // unwraps the keys of an encrypted disk; nil for one in the clear
	Tuning
}

// OpenReadOnly opens a named checkpoint of the disk at path, or its newest map if the name is empty: for an
// open disk that is up to a minute old.
func OpenReadOnly(ctx context.Context, store blob.Store, path, checkpoint string, opts ReadOnlyOptions) (*ReadOnly, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	opts.Tuning = opts.withDefaults(opts.Cache != nil)
	codec, err := format.NewCodec()
	if err != nil {
		return nil, err
	}
	o := newObjects(store, opts.Tuning)
	src := &pageSource{o: o, codec: codec}
	var ref *format.RootRef
	var size int64
	if checkpoint == "" {
		h, _, err := o.loadHead(ctx, path)
		if err != nil {
			return nil, err
		}
		ref, size, src.lineage = h.Root, h.Size, h.Lineage
		if src.keys, err = Unlock(ctx, h, opts.Key); err != nil {
			return nil, err
		}
	} else {
		c, err := o.loadCheckpoint(ctx, path, checkpoint)
		if err != nil {
			return nil, err
		}
		ref, size, src.lineage = c.Root, c.Size, c.Lineage
		if src.keys, err = o.checkpointKeys(ctx, c, path, opts.Key); err != nil {
			return nil, err
		}
	}
	root, err := src.loadRoot(ctx, ref)
	if err != nil {
		return nil, err
	}
	r := &ReadOnly{size: size, tasks: newTasks(ctx), o: o}
	r.rd = newReader(src, size, opts.Cache, r.tasks, opts.Tuning)
	distance := 0
	if ref != nil {
		distance = ref.Lineage
	}
	if err := r.rd.use(root, distance, opts.MapBytes); err != nil {
		r.tasks.stop()
		return nil, err
	}
	r.tasks.spawn(func(ctx context.Context) { r.rd.idleLoop(ctx, opts.FrameIdle) })
	return r, nil
}

// Size returns the disk's size in bytes.
func (r *ReadOnly) Size() int64 { return r.size }

// ReadAt fills p from off.
func (r *ReadOnly) ReadAt(ctx context.Context, p []byte, off int64) error {
	if off < 0 || off > r.size-int64(len(p)) {
		return errs.New(errs.Invalid, "range of %d bytes at %d is outside the disk of %d", len(p), off, r.size)
	}
	r.o.n.readBytes.Add(uint64(len(p)))
	return readAligned(p, off, func(p []byte, block uint64) error { return r.rd.read(ctx, p, block) })
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
func (r *ReadOnly) Stats() Stats { return r.o.n.stats() }

// Close ends it. It returns when nothing of it runs any more.
func (r *ReadOnly) Close() error {
	r.tasks.stop()
	return nil
}
