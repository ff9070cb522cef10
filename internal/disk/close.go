package disk

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Settle flushes and writes the map, so that a Close soon after has little left to do, and that
// Prepare elsewhere sees nearly all. It costs nothing when nothing changed.
func (d *Disk) Settle(ctx context.Context) error {
	if err := d.flushStore(ctx); err != nil {
		return err
	}
	_, err := d.writeMap(ctx, nil)
	return err
}

// Close flushes, writes the map and marks the head closed, so that the next attach replays nothing.
// Then nothing of the disk runs any more. With nothing new since the last map checkpoint it costs
// one swap of the head. Else it first writes the log object, and then the map's two objects side by
// side.
//
// From its start on mutations are refused. When it fails as Unavailable the disk stays attached,
// with all its data, and Close may be called again. A disk that had stopped before returns why.
func (d *Disk) Close(ctx context.Context) error {
	d.pipe.mu.Lock()
	if d.pipe.err != nil {
		err, detached := d.pipe.err, d.pipe.detached
		d.pipe.mu.Unlock()
		d.detach()
		if detached {
			return nil
		}
		return err
	}
	d.pipe.closing = true
	// A session shorter than the boot window leaves a trace only where there is none. It does so
	// only beside other writes, so that the trace takes no time of its own.
	var g errgroup.Group
	if d.reader.trace != nil && d.Head().Boot == 0 &&
		(d.pipe.forming != nil || len(d.pipe.queue) > 0 || d.reader.m.Changed()) {
		g.Go(func() error {
			d.saveTrace(ctx)
			return nil
		})
	}
	began := time.Now()
	err := d.flushAndUnlock(ctx, &flushing{})
	d.timed(partFlush, "", began)
	_ = g.Wait() // a trace is never the reason why a close fails
	if err == nil {
		began = time.Now()
		_, err = d.writeMap(ctx, func(h *format.Head) { h.State = format.StateClosed })
		d.timed(partWriteMap, "", began)
	}
	if err != nil {
		if d.Err() != nil {
			d.detach()
		}
		return errs.Wrap(errs.KindOf(err), err, "close disk %s", d.path)
	}
	d.Abandon()
	d.clearJournal()
	return nil
}
