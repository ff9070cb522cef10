package disk

import (
	"cmp"
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/disk/blockmap"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	packBlocks  = 4096 // blocks in a packed segment: 16 MiB of content
	packReads   = 8    // pieces read at a time
	smallBlocks = 64   // segments of fewer blocks are folded together
	// newest log objects, left alone in the background: they are likely to be overwritten soon
	youngObjects  = 64
	defaultTarget = 1.2
)

// CompactOptions says how far a compaction goes.
type CompactOptions struct {
	// Target is the space that segments take beside what is live in them; at least 1.01, default
	// 1.2.
	Target float64
	// Progress is told of every packed segment, and may be nil.
	Progress func(Compaction)
}

// Compaction is what a compaction has done. Bytes are of content, before compression.
type Compaction struct {
	// repacked: nothing refers to them any more, but checkpoints and forks may
	Segments   int   `json:"segments"`
	Packed     int   `json:"packed"`      // written
	MovedBytes int64 `json:"moved_bytes"` // copied
	RestBytes  int64 `json:"-"`           // to be copied yet, for progress
	DeadBytes  int64 `json:"dead_bytes"`  // dead content of the repacked segments
	LiveBytes  int64 `json:"live_bytes"`  // of the disk's own segments, afterwards
	SpaceBytes int64 `json:"space_bytes"` // that those hold, dead content with it
}

// Compact repacks the disk's own segments that hold least, and folds small ones together. It goes
// on until what they hold is within the target of what is live. It returns when the map that says
// so is written. What was repacked stays in the store, where checkpoints and forks may need it.
// Reads, writes and flushes go on beside it; a background compaction waits.
//
// Crash safety: a packed segment that no written map refers to is garbage, and the old ones still
// hold all.
func (d *Disk) Compact(ctx context.Context, opts CompactOptions) (Compaction, error) {
	var done Compaction
	if opts.Target == 0 {
		opts.Target = defaultTarget
	}
	if opts.Target < 1.01 {
		return done, errs.New(errs.Invalid, "a compaction to %.2f times the content", opts.Target).
			WithRemedy("use 1.01 or more")
	}
	if err := d.Flush(ctx); err != nil {
		return done, err
	}
	if err := d.takePackTurn(ctx); err != nil {
		return done, err
	}
	defer d.givePackTurn()
	if err := d.reader.m.LoadSegments(ctx); err != nil {
		return done, d.readError(ctx, err)
	}
	victims := chooseVictims(ownSegments(d.reader.m.Segments()), opts.Target)
	for len(victims) > 0 {
		n, err := d.packSome(ctx, victims, &done)
		if why := d.Err(); why != nil && err != nil {
			err = why // it was given up because the disk stopped
		}
		if err != nil {
			return done, errs.Wrap(errs.KindOf(err), err, "compact disk %s", d.path)
		}
		victims = victims[n:]
		done.RestBytes = 0
		for i := range victims {
			done.RestBytes += int64(victims[i].Entry.Live) * BlockSize
		}
		if opts.Progress != nil {
			opts.Progress(done)
		}
	}
	for _, s := range ownSegments(d.reader.m.Segments()) {
		done.LiveBytes += int64(s.Entry.Live) * BlockSize
		done.SpaceBytes += int64(s.Entry.Blocks) * BlockSize
	}
	_, err := d.writeMap(ctx, nil)
	return done, err
}

func (d *Disk) takePackTurn(ctx context.Context) error {
	select {
	case <-d.packing.turn:
		return nil
	case <-d.pipe.stopped:
		return d.Err()
	case <-ctx.Done():
		return errs.Wrap(errs.Unavailable, ctx.Err(), "wait for a compaction")
	}
}

func (d *Disk) givePackTurn() { d.packing.turn.give() }

// ownSegments returns the segments that the disk wrote itself. Only an ancestor may repack its own.
func ownSegments(all []blockmap.Segment) []blockmap.Segment {
	return slices.DeleteFunc(all, func(s blockmap.Segment) bool { return s.Entry.Lineage != 0 })
}

// chooseVictims returns what to repack so that all segments together hold at most target times what
// is live. It takes the emptiest first, and all small ones if there is more than one.
func chooseVictims(segs []blockmap.Segment, target float64) []blockmap.Segment {
	var live, space float64
	var small, rest []blockmap.Segment
	for _, s := range segs {
		live += float64(s.Entry.Live)
		space += float64(s.Entry.Blocks)
		if s.Entry.Blocks < smallBlocks {
			small = append(small, s)
		} else {
			rest = append(rest, s)
		}
	}
	var out []blockmap.Segment
	if len(small) > 1 {
		out = small
		for _, s := range small {
			space -= float64(s.Entry.Blocks - s.Entry.Live)
		}
	} else {
		rest = append(rest, small...)
	}
	slices.SortFunc(rest, func(a, b blockmap.Segment) int {
		return cmp.Compare(liveShare(&a.Entry), liveShare(&b.Entry))
	})
	for _, s := range rest {
		if space <= target*live || s.Entry.Live == s.Entry.Blocks {
			break
		}
		out = append(out, s)
		space -= float64(s.Entry.Blocks - s.Entry.Live)
	}
	return out
}

func liveShare(e *format.SegmentEntry) float64 { return float64(e.Live) / float64(e.Blocks) }

// packSome repacks as many of the victims as fit into one segment, at least one, and returns how
// many. The caller has the pack turn.
func (d *Disk) packSome(
	ctx context.Context, victims []blockmap.Segment, done *Compaction,
) (int, error) {
	var pieces []blockmap.Piece
	var moves []blockmap.Move
	blocks, n := 0, 0
	for ; n < len(victims); n++ {
		if n > 0 && (blocks+int(victims[n].Entry.Live) > packBlocks || len(moves) > packBlocks/2) {
			break
		}
		v := victims[n]
		vp, err := d.livePieces(ctx, &v)
		if err != nil {
			return 0, err
		}
		for _, p := range vp {
			moves = append(moves,
				blockmap.Move{Block: p.Block, Count: p.Count, First: p.First, From: v})
			blocks += int(p.Count)
		}
		pieces = append(pieces, vp...)
		done.Segments++
		done.DeadBytes += int64(v.Entry.Blocks-v.Entry.Live) * BlockSize
	}
	if blocks == 0 {
		return n, nil // all of it was overwritten meanwhile
	}
	slices.SortFunc(pieces, func(a, b blockmap.Piece) int { return cmp.Compare(a.Block, b.Block) })
	slices.SortFunc(moves, func(a, b blockmap.Move) int { return cmp.Compare(a.Block, b.Block) })
	content := make([]byte, blocks*BlockSize)
	if err := d.readPieces(ctx, pieces, content); err != nil {
		return 0, err
	}
	if err := d.pack(ctx, moves, content); err != nil {
		return 0, err
	}
	done.Packed++
	done.MovedBytes += int64(len(content))
	return n, nil
}

// livePieces returns what of a segment the map still refers to. The header's runs tell where to
// look.
func (d *Disk) livePieces(ctx context.Context, v *blockmap.Segment) ([]blockmap.Piece, error) {
	h, _, err := d.reader.frames.header(ctx, &v.Entry, segmentKey(d.path, &v.Entry))
	if err != nil {
		return nil, errs.Wrap(errs.KindOf(err), err, "read header of %s",
			segmentKey(d.path, &v.Entry))
	}
	var out []blockmap.Piece
	at := uint32(0)
	for _, r := range h.runs {
		if r.Kind != format.RunData {
			continue
		}
		pieces, err := d.reader.m.Lookup(ctx, r.LBA, r.Count, nil)
		if err != nil {
			return nil, err
		}
		for _, p := range pieces {
			e := &p.Seg
			if e.Kind == v.Entry.Kind && e.Lineage == 0 && e.Epoch == v.Entry.Epoch &&
				e.Seq == v.Entry.Seq &&
				p.First == at+uint32(p.Block-r.LBA) {
				out = append(out, p)
			}
		}
		at += uint32(r.Count)
	}
	return out, nil
}

// readPieces reads pieces one after the other into content.
func (d *Disk) readPieces(ctx context.Context, pieces []blockmap.Piece, content []byte) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(packReads)
	for i := range pieces {
		n := int(pieces[i].Count) * BlockSize
		dst := content[:n]
		content = content[n:]
		g.Go(func() error {
			return d.reader.frames.read(gctx, pieces[i:i+1], pieces[i].Block, dst)
		})
	}
	return g.Wait()
}

// pack writes one packed segment and moves the map over to it.
func (d *Disk) pack(ctx context.Context, moves []blockmap.Move, content []byte) error {
	var runs []format.Run
	for _, m := range moves {
		if k := len(runs); k > 0 && runs[k-1].LBA+runs[k-1].Count == m.Block {
			runs[k-1].Count += uint64(m.Count)
			continue
		}
		runs = append(runs, format.Run{LBA: m.Block, Count: uint64(m.Count)})
	}
	w, err := d.writePacked(ctx, runs, content, false)
	if err != nil {
		return err
	}
	defer w.finish()
	d.counters.packed.Add(1)
	d.counters.packedBytes.Add(w.seg.Size)
	if _, err := d.reader.m.Relocate(ctx, w.seg, moves); err != nil {
		return d.readError(ctx, err)
	}
	return nil
}

// compactLoop repacks in the background, after map checkpoints, when enough of this session's
// segments is dead.
func (d *Disk) compactLoop(ctx context.Context) {
	for d.due(ctx, d.packing.wake, nil) {
		if err := d.compactSome(ctx); err != nil && ctx.Err() == nil && d.Err() == nil {
			// Nothing is lost: what could not be repacked stays where it is.
			d.opts.Logger.Warn("compaction put off", "disk", d.path, "error", err.Error())
		}
	}
}

// compactSome repacks the segments whose repacking gains most for what it costs. It stays within
// its share of what the disk has written, and rests three times as long as it works.
func (d *Disk) compactSome(ctx context.Context) error {
	if err := d.takePackTurn(ctx); err != nil {
		return err
	}
	defer d.givePackTurn()
	victims := d.cheapVictims()
	for len(victims) > 0 {
		packed := d.counters.packedBytes.Load()
		written := d.store.Counts().PutBytes - packed
		if float64(packed) > d.opts.CompactShare*float64(written) {
			return nil
		}
		start := time.Now()
		var done Compaction
		n, err := d.packSome(ctx, victims, &done)
		if err != nil {
			return err
		}
		victims = victims[n:]
		if err := backoff.Sleep(ctx, 3*time.Since(start)); err != nil {
			return nil
		}
	}
	return nil
}

// cheapVictims returns own segments that are less than half live, the best first by dead × age for
// their live part. It returns none while less than CompactBytes would be won. It looks only at what
// is in memory: a request to find out would cost more than it could win.
func (d *Disk) cheapVictims() []blockmap.Segment {
	d.pipe.mu.RLock()
	newest := d.pipe.acked
	d.pipe.mu.RUnlock()
	var dead int64
	var out []blockmap.Segment
	for _, s := range ownSegments(d.reader.m.Segments()) {
		e := &s.Entry
		young := e.Kind == format.KindLog && e.Epoch == d.epoch && e.Seq+youngObjects > newest
		if !young && 2*e.Live < e.Blocks {
			out = append(out, s)
			dead += int64(e.Blocks-e.Live) * BlockSize
		}
	}
	if dead < d.opts.CompactBytes {
		return nil
	}
	gain := func(e *format.SegmentEntry) float64 {
		age := float64(newest) + 1
		if e.Kind == format.KindLog && e.Epoch == d.epoch {
			age = float64(newest-e.Seq) + 1
		}
		u := liveShare(e)
		return (1 - u) * age / (1 + u)
	}
	slices.SortFunc(out, func(a, b blockmap.Segment) int {
		return cmp.Compare(gain(&b.Entry), gain(&a.Entry))
	})
	return out
}
