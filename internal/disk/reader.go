package disk

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sluice-platform/sluice/internal/disk/blockmap"
	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// reader reads what is in the store: map, frames, readahead. Disk lays its unacknowledged writes
// over it.
type reader struct {
	m      *blockmap.Map
	frames *frames
	pages  *pageSource
	codec  *format.Codec
	tasks  *tasks
	blocks atomic.Uint64
	ahead  streams
	trace  *bootTrace // nil: nothing is recorded
}

// newReader builds a reader that reads nothing yet: setSize and use say what.
func newReader(
	pages *pageSource, dev *cache.Cache, t *tasks, n *counters, tune Tuning,
) *reader {
	if !tune.NoHedge {
		pages.store.Hedge(t.spawn)
	}
	r := &reader{
		pages: pages, codec: pages.codec, tasks: t,
		frames: newFrames(pages, dev, t, n, tune.FrameBytes),
		ahead: streams{most: uint64(max(0, tune.ReadAhead)) / BlockSize,
			slots: make(chan struct{}, maxReadAheads)},
	}
	return r
}

// setSize makes the disk so many bytes long.
func (r *reader) setSize(size int64) { r.blocks.Store(uint64(size) / BlockSize) }

// use makes the map under root what is read.
func (r *reader) use(root *format.Root, distance int, budget int64) error {
	size := int64(r.blocks.Load()) * BlockSize
	if root != nil {
		if root.Size > size {
			return errs.New(errs.Corrupt, "map of %d bytes under a disk of %d", root.Size, size)
		}
		if distance+len(root.Lineage) != len(r.pages.lineage) {
			return errs.New(errs.Corrupt,
				"map root has a lineage of %d at distance %d, the disk has %d",
				len(root.Lineage), distance, len(r.pages.lineage))
		}
	}
	r.m = blockmap.New(size, root, distance, r.pages, budget)
	return nil
}

// read fills p, a multiple of the block size, from block on.
func (r *reader) read(ctx context.Context, p []byte, block uint64) error {
	var arr [8]blockmap.Piece
	n := uint64(len(p)) / BlockSize
	pieces, err := r.m.Lookup(ctx, block, n, arr[:0])
	if err != nil {
		return err
	}
	for {
		if err = r.frames.read(ctx, pieces, block, p); !errs.Is(err, errs.Corrupt) {
			break
		}
		// What was moved meanwhile may be collected. It is lost only if the map says the same.
		again, lerr := r.m.Lookup(ctx, block, n, nil)
		if lerr != nil || samePlaces(pieces, again) {
			return err
		}
		pieces = again
	}
	if err != nil {
		return err
	}
	if r.trace != nil {
		r.trace.note(block, block+n)
	}
	if from, to := r.ahead.note(block, block+n, r.blocks.Load()); from < to {
		r.prefetch(from, to)
	}
	return nil
}

// samePlaces reports whether two lookups of one range found the same, whatever the live counts.
func samePlaces(a, b []blockmap.Piece) bool {
	return slices.EqualFunc(a, b, func(x, y blockmap.Piece) bool {
		x.Seg.Live, y.Seg.Live = 0, 0
		return x == y
	})
}

// prefetch reads the frames of a range into the cache in the background. The caller has taken a
// slot for it.
func (r *reader) prefetch(from, to uint64) {
	if !r.tasks.spawn(func(ctx context.Context) {
		defer func() { <-r.ahead.slots }()
		_ = r.warm(ctx, from, to) // whoever comes for it meets the same
	}) {
		<-r.ahead.slots
	}
}

// warm brings the frames of a range into the cache. Errors are left to the reader who comes for
// them, but for a refusal: Denied says that there is no use in asking for more.
func (r *reader) warm(ctx context.Context, from, to uint64) error {
	pieces, err := r.m.Lookup(ctx, from, to-from, nil)
	if errs.Is(err, errs.Denied) {
		return err
	} else if err != nil {
		return nil
	}
	var missing []pending
	for i := range pieces {
		pc := &pieces[i]
		if pc.Seg.Kind == format.KindFree || int(pc.Seg.Lineage) >= len(r.pages.lineage) {
			continue
		}
		last := (pc.First + pc.Count - 1) / format.FrameBlocks
		for fr := pc.First / format.FrameBlocks; fr <= last; fr++ {
			if key := r.frames.key(&pc.Seg, fr); !r.frames.has(key) {
				missing = append(missing, pending{key: key, seg: pc.Seg})
			}
		}
	}
	r.frames.counters.readAheads.Add(uint64(len(missing)))
	return r.frames.warm(ctx, missing)
}

const (
	maxReadAheads = 16 // under way at a time
	firstAhead    = 32 // blocks: 128 KiB
	// blocks: 1 MiB, what one request reads; a full window moves on in such steps
	aheadStep = 256
)

// streams notices sequential readers.
type streams struct {
	most  uint64 // blocks
	slots chan struct{}

	mu   sync.Mutex
	s    [4]stream
	hand int
}

type stream struct{ next, ahead, window uint64 }

// note records a read of [from, to) and returns the range to read ahead, empty if none; for another
// one it has taken a slot. The window doubles with each range up to its limit, and from then on
// moves with the reader.
func (st *streams) note(from, to, end uint64) (uint64, uint64) {
	if st.most == 0 {
		return 0, 0
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	for i := range st.s {
		s := &st.s[i]
		if s.next != from || from == 0 {
			continue
		}
		s.next = to
		begin := max(to, s.ahead)
		window := min(max(firstAhead, 2*s.window), st.most)
		until := min(to+window, end)
		if until <= begin || (until < end && until-begin < min(window/2, aheadStep)) {
			return 0, 0
		}
		select {
		case st.slots <- struct{}{}:
		default:
			return 0, 0 // nothing is skipped: a later read of the stream finds a slot
		}
		s.window, s.ahead = window, until
		return begin, until
	}
	st.s[st.hand] = stream{next: to}
	st.hand = (st.hand + 1) % len(st.s)
	return 0, 0
}
