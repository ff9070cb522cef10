package disk

import (
	"context"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// replayed is what recovery has read from a log store and not yet written as a segment.
type replayed struct {
	b    *batch
	next format.Position
}

// restage replays one object of a log store. It gathers the content, and destages it when there is
// enough.
func (rec *recovery) restage(ctx context.Context, s *logSlot) error {
	if rec.replaying == nil {
		rec.replaying = &replayed{b: newBatch(now(), &rec.disk.memory.tables)}
	}
	b := rec.replaying.b
	for _, r := range s.h.Runs {
		if r.Kind == format.RunZero {
			b.zero(r.LBA, r.LBA+r.Count)
		}
	}
	content, err := rec.disk.slotContent(ctx, s)
	if err != nil {
		return err
	}
	for _, r := range s.h.Runs {
		for i := uint64(0); r.Kind == format.RunData && i < r.Count; i++ {
			mem := blockMem(content)
			b.put(r.LBA+i, &mem)
			content = content[BlockSize:]
		}
	}
	rec.replaying.next = format.Position{Epoch: s.h.Epoch, Seq: s.h.Seq + 1}
	if b.blocks() < packBlocks && len(b.zeros) < maxZeroRuns {
		return nil
	}
	return rec.endRestage(ctx)
}

// slotContent returns the blocks of a log object.
func (d *Disk) slotContent(ctx context.Context, s *logSlot) ([]byte, error) {
	object := s.object
	if object == nil {
		var err error
		if object, err = d.logStore.GetExact(ctx, s.where, 0, s.size); err != nil {
			return nil, err
		}
	}
	body := object[s.h.Len():]
	content := make([]byte, 0, int(s.h.Blocks)*BlockSize)
	for i, f := range s.h.Frames {
		var err error
		stored := body[f.Offset : f.Offset+f.Length]
		if content, err = d.reader.codec.DecodeFrame(content, stored, f, s.key, i); err != nil {
			return nil, errs.Wrap(errs.KindOf(err), err, "frame %d of %s", i, s.where)
		}
	}
	return content, nil
}

// endRestage destages what is left of the content that was gathered.
func (rec *recovery) endRestage(ctx context.Context) error {
	r := rec.replaying
	if r == nil {
		return nil
	}
	w, err := rec.disk.writeStage(ctx, r.b)
	if err != nil {
		return err
	}
	defer w.finish()
	rec.replaying = nil
	return rec.disk.reader.m.Apply(w.seg, r.b.runs, r.next)
}
