package disk

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Destaging brings what the log store has into the disk's own store. Acknowledged batches are laid
// over each other in memory, in order and in stages. Each stage is written as a packed segment, and
// then the map is told of it. So the map never refers to a log object of another store, and content
// that was overwritten meanwhile is not written there at all.
//
// Crash safety: a segment of a stage that no written map refers to is garbage. The log still holds
// all after the head's position, which moves on with the map.

// staging is what the log store has and the map lacks. The pipeline's lock guards the stages.
// Whoever has the turn may destage.
type staging struct {
	turn   turn
	wake   signal   // wakes destageLoop
	stages []*stage // from old to new
}

func newStaging() staging { return staging{turn: newTurn(), wake: newSignal()} }

// stage is the content of log objects that are in the log store, and in no segment.
type stage struct {
	b      *batch
	from   uint64          // sequence number of the first of them
	next   format.Position // after the last
	frozen bool            // being written; guarded by the disk's lock
}

// add lays a batch over the stage, after which nobody may use the batch. It returns memory that
// nobody uses any more.
func (s *stage) add(b *batch) (unused []*blockMem) {
	for _, z := range b.zeros {
		s.b.zero(z.from, z.to)
	}
	for i, lba := range b.lbas {
		mem := b.slots[i]
		if lba != deadSlot {
			mem = s.b.put(lba, mem)
		}
		if mem != nil {
			unused = append(unused, mem)
		}
	}
	return unused
}

// stageBytes returns the content at which a stage is full. It is so little that writers that wait
// for memory always wait for a full stage.
func (d *Disk) stageBytes() int64 { return min(int64(d.opts.ObjectBytes), d.opts.DirtyBytes/4) }

// stageLocked keeps a batch that the log store has until it is destaged.
func (d *Disk) stageLocked(b *batch) {
	n := len(d.staging.stages)
	if n == 0 || d.staging.stages[n-1].frozen || d.fullStage(d.staging.stages[n-1]) {
		d.staging.stages = append(d.staging.stages,
			&stage{b: newBatch(b.since, &d.memory.tables), from: b.seq})
		n++
	}
	s := d.staging.stages[n-1]
	before := s.b.blocks() + b.blocks()
	unused := s.add(b)
	d.pipe.dirty += int64(s.b.blocks()-before) * BlockSize
	s.next = format.Position{Epoch: d.epoch, Seq: b.seq + 1}
	d.memory.blocks.put(unused)
	d.memory.tables.put(b.slotTable)
	b.slotTable = slotTable{}
	if d.fullStage(s) {
		d.staging.wake.notify()
	}
}

func (d *Disk) fullStage(s *stage) bool {
	return int64(s.b.blocks())*BlockSize >= d.stageBytes() || len(s.b.zeros) >= maxZeroRuns
}

// destageLoop destages what is full, in the background.
func (d *Disk) destageLoop(ctx context.Context) {
	for d.due(ctx, d.staging.wake, nil) {
		for {
			err := d.destage(ctx, d.fullStage)
			if err == nil || ctx.Err() != nil || d.Err() != nil {
				break
			}
			// Not lost: the log store has it. It stays in memory, and writers wait when that is
			// full.
			d.opts.Logger.Warn("moving the log's content to the disk's own store put off",
				"disk", d.path, "error", err.Error())
			if backoff.Sleep(ctx, checkpointRetry) != nil {
				return
			}
		}
	}
}

// destageAll returns when the map has all that was acknowledged before the call.
func (d *Disk) destageAll(ctx context.Context) error {
	if d.logPlace == nil {
		return nil
	}
	d.pipe.mu.RLock()
	last := d.pipe.acked
	d.pipe.mu.RUnlock()
	return d.destage(ctx, func(s *stage) bool { return s.from <= last })
}

// destage writes stages into the disk's own store, from the oldest on, as long as want says so. It
// writes several at a time, and tells the map of them in order.
func (d *Disk) destage(ctx context.Context, want func(*stage) bool) error {
	if err := d.staging.turn.take(ctx, "the log's content to be moved"); err != nil {
		return err
	}
	defer d.staging.turn.give()
	for {
		group := d.freeze(want)
		if len(group) == 0 {
			return nil
		}
		writes := make([]*packedWrite, len(group))
		g, gctx := errgroup.WithContext(ctx)
		for i, s := range group {
			g.Go(func() (err error) {
				writes[i], err = d.writeStage(gctx, s.b)
				return err
			})
		}
		err := g.Wait()
		for i, s := range group {
			if err == nil {
				err = d.reader.m.Apply(writes[i].seg, s.b.runs, s.next)
			}
			if err == nil {
				d.unstage(s)
			}
			writes[i].finish()
		}
		if err != nil {
			return errs.Wrap(errs.KindOf(err), err,
				"move the log's content to the disk's own store")
		}
	}
}

// freeze returns the oldest stages that are wanted, a few at most. Nothing is added to them any
// more.
func (d *Disk) freeze(want func(*stage) bool) []*stage {
	d.pipe.mu.Lock()
	defer d.pipe.mu.Unlock()
	n := 0
	for n < len(d.staging.stages) && n < d.opts.InFlight && want(d.staging.stages[n]) {
		d.staging.stages[n].frozen = true
		n++
	}
	return append([]*stage(nil), d.staging.stages[:n]...)
}

// unstage drops the oldest stage, which the map has.
func (d *Disk) unstage(s *stage) {
	d.pipe.mu.Lock()
	d.staging.stages[0] = nil
	d.staging.stages = d.staging.stages[1:]
	d.pipe.commits++
	d.pipe.dirty -= int64(s.b.blocks()) * BlockSize
	d.pipe.madeRoomLocked()
	d.pipe.mu.Unlock()
	s.b.release(&d.memory.blocks, &d.memory.tables)
}

// writeStage writes the data of a frozen batch as a packed segment. A batch of zeros alone needs
// none.
func (d *Disk) writeStage(ctx context.Context, b *batch) (*packedWrite, error) {
	if b.order == nil { // else it is not the first attempt
		b.plan()
	}
	if len(b.order) == 0 {
		return &packedWrite{}, nil
	}
	var runs []format.Run
	for _, r := range b.runs {
		if r.Kind == format.RunData {
			runs = append(runs, r)
		}
	}
	content := make([]byte, 0, len(b.order)*BlockSize)
	for _, i := range b.order {
		content = append(content, b.slots[i][:]...)
	}
	return d.writePacked(ctx, runs, content, true)
}
