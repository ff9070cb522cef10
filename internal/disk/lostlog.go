package disk

import (
	"context"
	"path"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/store"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// A hole in a log is where it ends: what lies beyond was in flight when its writer died, and never
// acknowledged. But a store can lose what it has acknowledged, and then a log that was cut at the
// hole would lose more, silently. Each log object tells up to where the store had acknowledged the
// log when it was made. So a hole before that is damage.

// lastAhead is how many of the last objects of a log are read at a hole: the last one tells most,
// if it is whole.
const lastAhead = 4

// aheadLog is what a listing shows of an epoch's log: sequence numbers of what can't be a fence,
// from low to high.
type aheadLog struct {
	done chan struct{} // closed when it is there
	seqs []uint64
}

// listAhead lists the log of an epoch from a slot on, beside the first reads of it. A listing that
// fails shows nothing: it only adds to what the reads tell.
func (d *Disk) listAhead(ctx context.Context, epoch, seq uint64) *aheadLog {
	l := &aheadLog{done: make(chan struct{})}
	first, err := d.logKey(epoch, seq)
	if err != nil || !d.tasks.spawn(func(tctx context.Context) {
		defer close(l.done)
		ctx, cancel := context.WithCancel(ctx)
		defer context.AfterFunc(tctx, cancel)()
		defer cancel()
		l.list(ctx, d.logStore, first)
	}) {
		close(l.done)
	}
	return l
}

func (l *aheadLog) list(ctx context.Context, client *store.Client, first string) {
	prefix := path.Dir(first) + "/"
	fence := int64(format.LogHeaderLen(0, 0))
	err := client.List(ctx, prefix, first, func() { l.seqs = l.seqs[:0] }, func(e blob.Entry) bool {
		if seq, ok := format.LogSeq(e.Key); ok && e.Size > fence {
			l.seqs = append(l.seqs, seq)
		}
		return true
	})
	if err != nil {
		l.seqs = nil
	}
}

// mayBeHole returns nil if a slot that was found empty may have been so all the time. Corrupt: a
// later object tells that it was acknowledged.
func (d *Disk) mayBeHole(
	ctx context.Context, epoch, seq uint64, beyond []logSlot, ahead *aheadLog,
) error {
	for i := range beyond {
		if h := beyond[i].h; h != nil && h.Acknowledged() >= seq {
			return d.lostObject(ctx, epoch, seq, h)
		}
	}
	select {
	case <-ahead.done:
	case <-ctx.Done():
		return errs.Wrap(errs.Unavailable, ctx.Err(), "list the log")
	}
	for i, read := len(ahead.seqs)-1, 0; i >= 0 && ahead.seqs[i] > seq &&
		read < lastAhead; i, read = i-1, read+1 {
		s, err := d.readSlot(ctx, epoch, ahead.seqs[i])
		if err != nil && !errs.Is(err, errs.Corrupt) {
			// what is broken beyond a hole may never have counted
			return err
		}
		if s.h != nil && s.h.Acknowledged() >= seq {
			return d.lostObject(ctx, epoch, seq, s.h)
		}
	}
	return nil
}

// lostObject returns the error of a slot that is empty and mustn't be, as h says. But a collector
// may have made the hole, long after somebody else took over.
func (d *Disk) lostObject(ctx context.Context, epoch, seq uint64, h *format.LogHeader) error {
	if err := d.revalidate(ctx); err != nil {
		return err
	}
	key, err := d.logKey(epoch, seq)
	if err != nil {
		return err
	}
	if s, err := d.readSlot(ctx, epoch, seq); err != nil || s.h != nil {
		// filled since, which a fence will run into
		return err
	}
	return errs.New(errs.Corrupt,
		"%s is gone, which the store had acknowledged: object %d of the same log says so; "+
			"acknowledged writes are lost, from this one on", key, h.Seq).
		WithRemedy("bring the object back, from a version or a backup of the store, and attach " +
			"again; what the disk's newest map has can be read: " +
			"sluice disk mount or serve, --read-only; a checkpoint can be forked; sluice disk " +
			"fsck tells what else is damaged")
}
