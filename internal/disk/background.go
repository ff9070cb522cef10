package disk

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func (d *Disk) startBackground() {
	d.store.InUse()
	d.tasks.spawn(d.sealLoop)
	d.tasks.spawn(d.mapLoop)
	d.tasks.spawn(d.proofLoop)
	d.tasks.spawn(func(ctx context.Context) { d.reader.idleLoop(ctx, d.opts.FrameIdle) })
	if d.opts.CompactBytes > 0 {
		d.tasks.spawn(d.compactLoop)
	}
	if d.reader.trace != nil {
		d.tasks.spawn(d.traceLoop)
	}
	if d.opts.Revalidate > 0 {
		d.tasks.spawn(d.revalidateLoop)
	}
}

// sealLoop uploads writes that nobody flushes, and frees the memory for writes when there are none.
func (d *Disk) sealLoop(ctx context.Context) {
	every := d.opts.SealInterval
	t := time.NewTicker(every)
	defer t.Stop()
	var commits uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.bounding.changed:
		case <-t.C:
		}
		d.pipe.mu.Lock()
		if d.bounding.sealEvery != every {
			every = d.bounding.sealEvery
			t.Reset(every)
		}
		if d.pipe.forming != nil && time.Since(d.pipe.forming.since) >= every {
			d.pipe.flushWanted = true
			d.pumpLocked()
		}
		idle := d.pipe.dirty == 0 && d.pipe.commits == commits
		commits = d.pipe.commits
		d.pipe.mu.Unlock()
		if idle {
			d.memory.drain()
		}
	}
}

// mapLoop writes the map when the log has grown, or after a while.
func (d *Disk) mapLoop(ctx context.Context) {
	t := time.NewTicker(d.opts.CheckpointInterval)
	defer t.Stop()
	for d.due(ctx, d.mapping.wake, t.C) {
		_, err := d.writeMap(ctx, nil)
		if err == nil || ctx.Err() != nil || d.Err() != nil {
			continue
		}
		// Not lost: the log holds everything. Attaching after a crash takes longer until it works
		// again.
		d.opts.Logger.Warn("map checkpoint put off", "disk", d.path, "error", err.Error())
		if backoff.Sleep(ctx, checkpointRetry) != nil {
			return
		}
		d.wakeMapWriter()
	}
}

// revalidateLoop asks the store regularly whether we are still the writer. Without it a fenced
// session would go on as long as the cache serves all its reads.
func (d *Disk) revalidateLoop(ctx context.Context) {
	t := time.NewTicker(d.opts.Revalidate)
	defer t.Stop()
	for d.due(ctx, nil, t.C) {
		if d.use.busy.Swap(false) {
			// if it fails for too long, so do reads that need nothing of the store
			release := d.store.Waiting()
			d.use.stale.Store(errs.Is(d.revalidate(ctx), errs.Unavailable))
			release()
		}
	}
}

// revalidate reads the head and fences the disk if it is not ours.
func (d *Disk) revalidate(ctx context.Context) error {
	obj, err := d.store.Get(ctx, headKey(d.path), blob.All())
	if errs.Is(err, errs.NotFound) {
		d.fail(errs.Wrap(errs.Fenced, err, "disk %s is gone", d.path))
	}
	if err != nil {
		return err
	}
	h, err := format.DecodeHead(obj.Data)
	if err != nil {
		err = errs.Wrap(errs.KindOf(err), err, "head of %s", d.path)
		d.fail(err)
		return err
	}
	return d.checkHead(h)
}
