package disk

import (
	"context"
	"sync"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// segNumbers hands out the numbers of this epoch's packed segments. It gives each number once,
// whether the attempt succeeds or not: one that was given up may still arrive. Safe for concurrent
// use.
type segNumbers struct {
	mu   sync.Mutex
	last uint32
	open map[uint32]struct{}
}

func (s *segNumbers) take() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[uint32]struct{}{}
	}
	s.last++
	s.open[s.last] = struct{}{}
	return s.last
}

// done says that a segment is in the map, or never will be.
func (s *segNumbers) done(n uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, n)
}

// unfinished returns the first number that isn't done; from 1.
func (s *segNumbers) unfinished() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.last + 1
	for n := range s.open {
		first = min(first, n)
	}
	return first
}

// packing is the state of packed segments. Whoever has the turn may compact. Destaging writes
// packed segments, too, and needs no turn of it.
type packing struct {
	turn    turn
	wake    signal // wakes compactLoop
	numbers segNumbers
}

func newPacking() packing { return packing{turn: newTurn(), wake: newSignal()} }

// packedWrite is a packed segment that is stored. finish must be called once the map has it, or
// never will; on nil it does nothing.
type packedWrite struct {
	seg  format.SegmentEntry
	done func()
}

func (w *packedWrite) finish() {
	if w != nil && w.done != nil {
		w.done()
	}
}

// writePacked writes one packed segment of content in runs. It keeps the content on the cache
// device if there is one. Without one it keeps it in memory if it is fresh: written just now.
func (d *Disk) writePacked(
	ctx context.Context, runs []format.Run, content []byte, fresh bool,
) (_ *packedWrite, err error) {
	n := d.packing.numbers.take()
	w := &packedWrite{done: func() { d.packing.numbers.done(n) }}
	defer func() {
		if err != nil {
			w.finish()
		}
	}()
	h := format.LogHeader{Kind: format.KindSeg, Disk: d.uid, Nonce: newID(), Epoch: d.epoch,
		Seq: uint64(n), Created: now().UnixMilli(),
		Blocks: uint32(len(content) / BlockSize), Runs: runs}
	sealer, err := d.sealer(&h)
	if err != nil {
		return nil, err
	}
	body := encodePacked(d.reader.codec, &h, sealer, content)
	w.seg = format.SegmentEntry{Kind: format.KindSeg, Epoch: d.epoch, Seq: h.Seq,
		Size:      uint64(len(body)),
		HeaderLen: uint32(h.Len()), Blocks: h.Blocks}
	key := segmentKey(d.path, &w.seg)
	if err := d.store.PutOnce(ctx, key, body, func(got []byte) bool {
		return format.SameLogObject(got, body)
	}); err != nil {
		return nil, errs.Wrap(errs.KindOf(err), err, "write %s", key)
	}
	d.keepUnproven(&unprovenObject{at: d.store, key: key, body: body})
	d.reader.frames.keepHeader(&w.seg, h.Frames, h.Runs, sealer)
	if d.opts.Cache != nil || fresh {
		d.reader.frames.fill(len(content), func() {
			for i := range h.Frames {
				off := i * format.FrameSize
				d.reader.frames.keep(d.reader.frames.key(&w.seg, uint32(i)),
					content[off:min(off+format.FrameSize, len(content))])
			}
		})
	}
	return w, nil
}

// encodePacked returns a packed segment, and completes its header. key is nil on a disk in the
// clear.
func encodePacked(
	c *format.Codec, h *format.LogHeader, key *format.ObjectKey, content []byte,
) []byte {
	n := (len(content) + format.FrameSize - 1) / format.FrameSize
	h.Frames = make([]format.Frame, n)
	hlen := h.Len()
	body := make([]byte, hlen, hlen+len(content))
	frames := c.FrameWriter(h.Kind, hlen, key)
	for i := range n {
		off := i * format.FrameSize
		body, h.Frames[i] = frames.Append(body,
			content[off:min(off+format.FrameSize, len(content))])
	}
	h.Body = uint32(len(body) - hlen)
	h.Seal(body[:hlen], key)
	return body
}
