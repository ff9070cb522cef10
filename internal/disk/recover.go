package disk

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	firstWindow   = 2        // log objects read at a time during replay; doubles up to lastWindow
	lastWindow    = 16       //
	headerGuess   = 64 << 10 // bytes of a log object read at first: nearly every header fits
	farFence      = 16       // slots ahead of a writer that keeps beating our fence
	racesForAFar  = 2        // lost races after which a far fence is written
	maxFenceRaces = 10_000
)

// logSlot is what a slot of a log holds; h is nil for a hole.
type logSlot struct {
	h      *format.LogHeader
	size   int64
	where  string            // its key
	object []byte            // all of it, if it was read whole
	key    *format.ObjectKey // of its frames; nil: they are in the clear
}

// recovery is one replay of what earlier writers have left. Only the attach that makes it uses it.
type recovery struct {
	disk      *Disk
	replaying *replayed
	fences    []unprovenObject // that it wrote, and the store has not shown yet
}

// run replays every log before our epoch from pos on. It makes sure that each ends in a fence, so
// that no writer of an old epoch can ever have another write acknowledged. It returns the sequence
// number of the last object that counts, per epoch.
//
// It is safe to die at any point: the head still says where replay starts, and fences are written
// once.
func (rec *recovery) run(ctx context.Context, pos format.Position) (map[uint64]uint64, error) {
	d := rec.disk
	last := make(map[uint64]uint64)
	for ; pos.Epoch < d.epoch; pos = (format.Position{Epoch: pos.Epoch + 1, Seq: 1}) {
		seq, err := rec.recoverEpoch(ctx, pos.Epoch, pos.Seq)
		if err != nil {
			return nil, errs.Wrap(errs.KindOf(err), err, "replay log of epoch %d", pos.Epoch)
		}
		last[pos.Epoch] = seq - 1
	}
	if err := d.sameLog(ctx); err != nil {
		return nil, err
	}
	if err := rec.endRestage(ctx); err != nil {
		return nil, err
	}
	d.reader.m.SetPosition(pos)
	return last, nil
}

// recoverEpoch replays one epoch's log up to the first fence, which it writes where there is none,
// and returns the fence's place. A hole that was acknowledged is Corrupt, and gets no fence.
func (rec *recovery) recoverEpoch(ctx context.Context, epoch, seq uint64) (uint64, error) {
	d := rec.disk
	window, lost := firstWindow, 0
	ahead := d.listAhead(ctx, epoch, seq)
	for {
		slots, beyond, err := d.readSlots(ctx, epoch, seq, window)
		if err != nil {
			return 0, err
		}
		window = min(2*window, lastWindow)
		for _, s := range slots {
			if s.h == nil {
				break
			}
			if s.h.IsFence() {
				return seq, nil
			}
			if err := rec.replay(ctx, s); err != nil {
				return 0, err
			}
			seq++
		}
		if slots[len(slots)-1].h != nil {
			continue
		}
		// Slots were read at the same time, so a full one after this hole proves nothing: it stays
		// unread until the hole is decided. But it may tell that the hole was none once.
		if err := d.mayBeHole(ctx, epoch, seq, beyond, ahead); err != nil {
			return 0, err
		}
		won, err := rec.fence(ctx, epoch, seq)
		if won || err != nil {
			return seq, err
		}
		if lost++; lost >= racesForAFar {
			// The old writer is as fast as we are. A fence further on is one that it will run into.
			further := uint64(farFence) << min(lost-racesForAFar, 6)
			if _, err := rec.fence(ctx, epoch, seq+further); err != nil {
				return 0, err
			}
		}
		if lost > maxFenceRaces {
			return 0, errs.New(errs.Unavailable, "the old writer keeps beating the fence")
		}
	}
}

// fence puts a fence into a slot, and reports whether ours is there now. False: somebody else's
// object is.
func (rec *recovery) fence(ctx context.Context, epoch, seq uint64) (bool, error) {
	d := rec.disk
	body := format.EncodeFence(d.uid, newID(), epoch, seq, now().UnixMilli())
	key, err := d.logKey(epoch, seq)
	if err != nil {
		return false, err
	}
	began := time.Now()
	err = d.logStore.PutOnce(ctx, key, body, func(got []byte) bool {
		return format.SameLogObject(got, body)
	})
	d.timed(partFence, partReplay, began)
	if errs.Is(err, errs.Conflict) {
		return false, nil
	}
	if err == nil {
		rec.fences = append(rec.fences, unprovenObject{key: key, body: body})
	}
	return err == nil, err
}

// proveFences returns when the store has shown the fences that this recovery wrote. One that it
// only acknowledged stops no writer.
func (rec *recovery) proveFences(ctx context.Context) error {
	d := rec.disk
	g, gctx := errgroup.WithContext(ctx)
	for _, f := range rec.fences {
		g.Go(func() error {
			err := d.logStore.Prove(gctx, f.key, f.body)
			if errs.Is(err, errs.Conflict) {
				return errs.Wrap(errs.Unavailable, err,
					"a fence was not stored, and the old writer went on").
					WithRemedy("attach again")
			}
			return err
		})
	}
	err := g.Wait()
	rec.fences = nil
	return err
}

// readSlots reads n slots at once, cut after the first hole. beyond is those after that one.
func (d *Disk) readSlots(
	ctx context.Context, epoch, seq uint64, n int,
) (upTo, beyond []logSlot, err error) {
	slots := make([]logSlot, n)
	g, gctx := errgroup.WithContext(ctx)
	for i := range slots {
		g.Go(func() (err error) {
			slots[i], err = d.readSlot(gctx, epoch, seq+uint64(i))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	for i := range slots {
		if slots[i].h == nil {
			return slots[:i+1], slots[i+1:], nil
		}
	}
	return slots, nil, nil
}

// readSlot reads the header of one log object.
func (d *Disk) readSlot(ctx context.Context, epoch, seq uint64) (logSlot, error) {
	key, err := d.logKey(epoch, seq)
	if err != nil {
		return logSlot{}, err
	}
	obj, err := d.logStore.Get(ctx, key, blob.Range{Offset: 0, Length: headerGuess})
	if errs.Is(err, errs.NotFound) {
		return logSlot{}, nil
	}
	if err != nil {
		return logSlot{}, err
	}
	b := obj.Data
	n, err := format.LogHeaderLenOf(b)
	if err != nil {
		return logSlot{}, errs.Wrap(errs.KindOf(err), err, "%s", key)
	}
	if n > len(b) && int64(n) <= obj.Size {
		if b, err = d.logStore.GetExact(ctx, key, 0, int64(n)); err != nil {
			return logSlot{}, err
		}
	}
	h, err := format.DecodeLogHeader(b)
	if err != nil {
		return logSlot{}, errs.Wrap(errs.KindOf(err), err, "%s", key)
	}
	if h.Epoch != epoch || h.Seq != seq || h.Kind != format.KindLog || h.Disk != d.uid ||
		obj.Size != int64(n)+int64(h.Body) {
		return logSlot{}, errs.New(errs.Corrupt, "%s holds another object", key)
	}
	s := logSlot{h: h, size: obj.Size, where: key}
	if s.key, err = d.reader.pages.keys.Open(d.reader.pages.lineage[0].UID, h); err != nil {
		return logSlot{}, errs.Wrap(errs.KindOf(err), err, "%s", key)
	}
	if int64(len(obj.Data)) == obj.Size {
		s.object = obj.Data
	}
	return s, nil
}

// replay applies one log object to the map. The content of one in a log store is brought to the
// disk's own first.
func (rec *recovery) replay(ctx context.Context, s logSlot) error {
	d := rec.disk
	for _, r := range s.h.Runs {
		if r.LBA+r.Count > d.reader.blocks.Load() {
			return errs.New(errs.Corrupt, "log object %d writes past the end of the disk", s.h.Seq)
		}
	}
	d.counters.replayed.Add(1)
	if d.logPlace != nil {
		return rec.restage(ctx, &s)
	}
	seg := format.SegmentEntry{Kind: format.KindLog, Epoch: s.h.Epoch, Seq: s.h.Seq,
		Size:      uint64(s.size),
		HeaderLen: uint32(s.h.Len()), Blocks: s.h.Blocks}
	return d.reader.m.Apply(seg, s.h.Runs, format.Position{Epoch: s.h.Epoch, Seq: s.h.Seq + 1})
}
