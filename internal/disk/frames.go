package disk

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sluice-platform/sluice/internal/disk/blockmap"
	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/store"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	wholeObject   = 128 << 10 // segments up to this size are read by one request, header and all
	framesPerGet  = 16        // adjacent frames that one request reads at most: 1 MiB of content
	headerFrame   = math.MaxUint32
	maxHeaderRefs = 1 << 20 // frame table entries kept: 16 MiB

	// maxReads bounds the requests of readers under way at a time, and maxWarming those among them
	// that nobody waits for yet. A file that grew by small fsyncs is in as many objects: without a
	// bound each takes a connection of its own, and a host has some 28,000 ports.
	maxReads   = 256
	maxWarming = 64

	// maxFilling bounds the content that waits in memory for the cache device. While the device
	// takes less than what is read and written, the rest goes past it: nobody ever waits for the
	// cache.
	maxFilling = 32 << 20
)

// frames reads frames of segments: from memory, from the cache device, or from the store.
// Concurrent readers of one frame share one request. Content it hands out is immutable.
type frames struct {
	store    *store.Client
	counters *counters
	codec    *format.Codec
	lineage  []format.Ancestor
	keys     format.Keys
	dev      *cache.Cache
	spaces   []uint32 // of the lineage, in keys
	tasks    *tasks
	// stores again what was lost, if it can; nil: nothing can
	heal    func(ctx context.Context, key string) bool
	filling atomic.Int64  // bytes on their way to dev
	reading chan struct{} // has one element for each request under way
	warming chan struct{} // the same, for those in the background

	mu      sync.Mutex
	ram     ramFrames
	flights map[cache.Key]*frameFlight
	headers map[cache.Key]*segmentHeader
	entries int // in headers
}

// frameFlight is a frame or a header on its way. Its fields are set before done is closed.
type frameFlight struct {
	done   chan struct{}
	data   []byte
	header *segmentHeader
	err    error
}

// pending is a part of a read that no cache could serve.
type pending struct {
	key   cache.Key
	seg   format.SegmentEntry
	first int    // block in the frame
	dst   []byte // what to fill
	fl    *frameFlight
}

func newFrames(pages *pageSource, dev *cache.Cache, t *tasks, n *counters, ramBytes int64) *frames {
	f := &frames{store: pages.store, counters: n, codec: pages.codec, lineage: pages.lineage,
		keys: pages.keys, dev: dev, tasks: t,
		flights: make(map[cache.Key]*frameFlight), headers: make(map[cache.Key]*segmentHeader),
		ram:     newRAMFrames(ramBytes),
		reading: make(chan struct{}, maxReads), warming: make(chan struct{}, maxWarming)}
	for i, a := range f.lineage {
		space := uint32(i + 1)
		if dev != nil {
			space = dev.Space(a.UID, f.keys[a.UID] != nil)
		}
		f.spaces = append(f.spaces, space)
	}
	return f
}

func (f *frames) key(seg *format.SegmentEntry, frame uint32) cache.Key {
	return cache.Key{Space: f.spaces[seg.Lineage], Kind: seg.Kind, Frame: frame, Epoch: seg.Epoch,
		Seq: seg.Seq}
}

// read fills p, which begins at block base of the disk, from pieces that cover it.
func (f *frames) read(ctx context.Context, pieces []blockmap.Piece, base uint64, p []byte) error {
	var missing []pending
	for i := range pieces {
		pc := &pieces[i]
		dst := p[(pc.Block-base)*BlockSize:][:uint64(pc.Count)*BlockSize]
		if pc.Seg.Kind == format.KindFree {
			clear(dst)
			continue
		}
		if int(pc.Seg.Lineage) >= len(f.lineage) {
			return errs.New(errs.Corrupt, "map refers to disk %d of a lineage of %d",
				pc.Seg.Lineage, len(f.lineage))
		}
		for b := pc.First; len(dst) > 0; {
			first := b % format.FrameBlocks
			n := min(len(dst), int(format.FrameBlocks-first)*BlockSize)
			key := f.key(&pc.Seg, b/format.FrameBlocks)
			if !f.cached(key, int(first), dst[:n]) {
				missing = append(missing,
					pending{key: key, seg: pc.Seg, first: int(first), dst: dst[:n]})
			}
			dst, b = dst[n:], b+uint32(n/BlockSize)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return f.fetch(ctx, missing)
}

// cached fills dst from memory or the cache device, from block first of a frame on.
func (f *frames) cached(key cache.Key, first int, dst []byte) bool {
	f.mu.Lock()
	data := f.ram.get(key)
	f.mu.Unlock()
	if end := first*BlockSize + len(dst); data != nil && end <= len(data) {
		copy(dst, data[first*BlockSize:end])
		f.counters.frameHits.Add(1)
		return true
	}
	if f.dev != nil && f.dev.ReadAt(key, dst, first) {
		f.counters.frameHits.Add(1)
		return true
	}
	f.counters.frameMisses.Add(1)
	return false
}

// fetch starts what is not on its way yet, waits, and fills the destinations.
func (f *frames) fetch(ctx context.Context, missing []pending) error {
	runs, _ := f.claim(missing, len(missing))
	f.launch(runs, func() {})
	for i := range missing {
		m := &missing[i]
		select {
		case <-m.fl.done:
		case <-ctx.Done():
			return errs.Wrap(errs.Unavailable, ctx.Err(), "read a frame")
		}
		if m.fl.err != nil {
			return m.fl.err
		}
		off := m.first * BlockSize
		if off+len(m.dst) > len(m.fl.data) {
			return errs.New(errs.Corrupt, "frame of %d bytes, want %d at %d", len(m.fl.data),
				len(m.dst), off)
		}
		copy(m.dst, m.fl.data[off:])
	}
	return nil
}

// frameRun is adjacent frames of one segment that one request reads.
type frameRun struct {
	seg     format.SegmentEntry
	from    uint32
	flights []*frameFlight
}

// takes reports whether a part is the next frame of the run, and fits into its request.
func (r *frameRun) takes(m *pending) bool {
	return len(r.flights) < framesPerGet && r.seg == m.seg &&
		r.from+uint32(len(r.flights)) == m.key.Frame
}

// claim gives pending parts a flight: one under way, or a new one of a run that it returns, which
// must be launched. It stops before more runs than most, and returns the parts from there on.
func (f *frames) claim(missing []pending, most int) (runs []frameRun, rest []pending) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range missing {
		m := &missing[i]
		if m.fl = f.flights[m.key]; m.fl != nil {
			continue
		}
		if data := f.ram.get(m.key); data != nil { // came in since we looked
			m.fl = &frameFlight{done: make(chan struct{}), data: data}
			close(m.fl.done)
			continue
		}
		n := len(runs)
		joins := n > 0 && runs[n-1].takes(m)
		if !joins && n == most {
			return runs, missing[i:]
		}
		m.fl = &frameFlight{done: make(chan struct{})}
		f.flights[m.key] = m.fl
		if joins {
			runs[n-1].flights = append(runs[n-1].flights, m.fl)
			continue
		}
		runs = append(runs, frameRun{seg: m.seg, from: m.key.Frame, flights: []*frameFlight{m.fl}})
	}
	return runs, nil
}

// launch brings runs in the background. It calls landed once for each, when that has landed.
func (f *frames) launch(runs []frameRun, landed func()) {
	for i := range runs {
		r := &runs[i]
		if !f.tasks.spawn(func(ctx context.Context) { f.fly(ctx, r, landed) }) {
			f.land(r, nil, errs.New(errs.Unavailable, "the disk is detached"))
			landed()
		}
	}
}

// warm launches what is not on its way yet, maxWarming requests at a time, and waits for all. It
// returns the first refusal (Denied), and nil when ctx has ended.
func (f *frames) warm(ctx context.Context, missing []pending) error {
	for rest := missing; len(rest) > 0; {
		select {
		case f.warming <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		var run []frameRun // at most one
		run, rest = f.claim(rest, 1)
		if len(run) == 0 {
			<-f.warming
		}
		f.launch(run, func() { <-f.warming })
	}
	for i := range missing {
		select {
		case <-missing[i].fl.done:
		case <-ctx.Done():
			return nil
		}
		if err := missing[i].fl.err; errs.Is(err, errs.Denied) {
			return err
		}
	}
	return nil
}

// fly reads a run and lands it, and then keeps it on the cache device.
func (f *frames) fly(ctx context.Context, r *frameRun, landed func()) {
	data, err := f.bring(ctx, r)
	f.land(r, data, err)
	landed()
	if f.dev == nil || err != nil {
		return
	}
	f.fill(len(data)*format.FrameSize, func() {
		for i := range data {
			f.dev.Insert(f.key(&r.seg, r.from+uint32(i)), data[i])
		}
	})
}

// bring reads a run when it may, and once more if what came is broken.
func (f *frames) bring(ctx context.Context, r *frameRun) ([][]byte, error) {
	select {
	case f.reading <- struct{}{}:
	case <-ctx.Done():
		return nil, errs.Wrap(errs.Unavailable, ctx.Err(), "wait to read a frame")
	}
	defer func() { <-f.reading }()
	data, err := f.readRun(ctx, r)
	if errs.Is(err, errs.Corrupt) {
		if f.heal != nil {
			f.heal(ctx, segmentKey(f.lineage[r.seg.Lineage].Path, &r.seg))
		}
		data, err = f.readRun(ctx, r) // once more: the way here may have bent it, not the store
	}
	return data, err
}

// fill calls insert, which keeps n bytes of content, unless so much waits for the cache device
// already.
func (f *frames) fill(n int, insert func()) {
	if f.dev == nil {
		insert()
		return
	}
	defer f.filling.Add(-int64(n))
	if f.filling.Add(int64(n)) > maxFilling {
		f.counters.cacheSkips.Add(1)
		return
	}
	insert()
}

func (f *frames) land(r *frameRun, data [][]byte, err error) {
	f.mu.Lock()
	for i, fl := range r.flights {
		key := f.key(&r.seg, r.from+uint32(i))
		delete(f.flights, key)
		if fl.err = err; err == nil {
			fl.data = data[i]
			f.ram.put(key, data[i])
		}
	}
	f.mu.Unlock()
	for _, fl := range r.flights {
		close(fl.done)
	}
}

// readRun reads and checks the frames of a run.
func (f *frames) readRun(ctx context.Context, r *frameRun) ([][]byte, error) {
	key := segmentKey(f.lineage[r.seg.Lineage].Path, &r.seg)
	h, whole, err := f.header(ctx, &r.seg, key)
	if err != nil {
		return nil, errs.Wrap(errs.KindOf(err), err, "read header of %s", key)
	}
	n := uint32(len(r.flights))
	if uint64(r.from)+uint64(n) > uint64(len(h.frames)) {
		return nil, errs.New(errs.Corrupt, "%s has %d frames, want %d", key, len(h.frames),
			r.from+n)
	}
	fr := h.frames[r.from : r.from+n]
	start, last := h.length+int64(fr[0].Offset), fr[n-1]
	end := h.length + int64(last.Offset) + int64(last.Length)
	var body []byte
	if int64(len(whole)) >= end {
		body = whole[start:end]
	} else if body, err = f.store.GetExact(ctx, key, start, end-start); err != nil {
		return nil, errs.Wrap(errs.KindOf(notMissing(err)), err, "read frames of %s", key)
	}
	data := make([][]byte, n)
	for i := range fr {
		off := fr[i].Offset - fr[0].Offset
		stored := body[off : off+fr[i].Length]
		content := make([]byte, 0, int(fr[i].Blocks)*BlockSize)
		data[i], err = f.codec.DecodeFrame(content, stored, fr[i], h.key, int(r.from)+i)
		if err != nil {
			return nil, errs.Wrap(errs.KindOf(err), err, "frame %d of %s", int(r.from)+i, key)
		}
	}
	return data, nil
}

// has reports whether a frame needs no request.
func (f *frames) has(key cache.Key) bool {
	f.mu.Lock()
	there := f.ram.get(key) != nil || f.flights[key] != nil
	f.mu.Unlock()
	return there || (f.dev != nil && f.dev.Contains(key))
}

// keep remembers a frame that we wrote: on the device if there is one, else in memory. content is
// not kept.
func (f *frames) keep(key cache.Key, content ...[]byte) {
	if f.dev != nil {
		f.dev.Insert(key, content...)
		return
	}
	own := slices.Concat(content...)
	f.mu.Lock()
	f.ram.put(key, own)
	f.mu.Unlock()
}
