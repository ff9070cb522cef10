package disk

import (
	"context"

	"github.com/sluice-platform/sluice/internal/disk/blockmap"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Extents is what a device has that knows where it holds content. Both kinds of disk do.
type Extents interface {
	// NextExtent says what lies at off: up to end the device holds content (data), or reads as
	// zeros and takes no space. off < end ≤ limit, and limit is at most the size; end may be short
	// of where the kind changes. Bounds are in bytes, and end is a multiple of BlockSize or limit.
	// It is as fresh as a ReadAt would be.
	NextExtent(ctx context.Context, off, limit int64) (end int64, data bool, err error)
}

var (
	_ Extents = (*Disk)(nil)
	_ Extents = (*ReadOnly)(nil)
)

const (
	firstExtentWindow = 1024     // blocks looked at first; doubles while all of them are alike
	lastExtentWindow  = 1 << 16  // 256 MiB
	dirtyWindow       = 16 << 10 // blocks looked at one by one while writes are on their way
	maxExtentSteps    = 64       // windows joined into one answer
)

// NextExtent implements Extents.
func (d *Disk) NextExtent(ctx context.Context, off, limit int64) (int64, bool, error) {
	if err := checkExtent(off, limit, d.Size()); err != nil {
		return 0, false, err
	}
	d.touch()
	return joinExtents(off, limit, func(block, count uint64) (uint64, bool, error) {
		d.pipe.mu.RLock()
		if err := d.pipe.err; err != nil {
			d.pipe.mu.RUnlock()
			return 0, false, err
		}
		n, kind := d.dirtyKindLocked(block, count)
		d.pipe.mu.RUnlock()
		if kind != kindUnknown {
			return n, kind == kindData, nil
		}
		n, data, err := d.reader.nextExtent(ctx, block, n)
		if err != nil {
			err = d.readError(ctx, err)
		}
		return n, data, err
	})
}

// NextExtent implements Extents.
func (r *ReadOnly) NextExtent(ctx context.Context, off, limit int64) (int64, bool, error) {
	if err := checkExtent(off, limit, r.size); err != nil {
		return 0, false, err
	}
	if err := r.pinned(); err != nil {
		return 0, false, err
	}
	return joinExtents(off, limit, func(block, count uint64) (uint64, bool, error) {
		return r.reader.nextExtent(ctx, block, count)
	})
}

func checkExtent(off, limit, size int64) error {
	if off < 0 || off >= limit || limit > size {
		return errs.New(errs.Invalid, "extent from %d to %d of a disk of %d", off, limit, size)
	}
	return nil
}

// joinExtents asks next for window after window for as long as the answers are of one kind.
func joinExtents(
	off, limit int64, next func(block, count uint64) (uint64, bool, error),
) (int64, bool, error) {
	block, end := uint64(off)/BlockSize, (uint64(limit)+BlockSize-1)/BlockSize
	at, window, kind := block, uint64(firstExtentWindow), false
	for step := 0; at < end && step < maxExtentSteps; step++ {
		want := min(window, end-at)
		n, data, err := next(at, want)
		if err != nil {
			return 0, false, err
		}
		if at > block && data != kind {
			break
		}
		at, kind = at+n, data
		if n == want {
			window = min(2*window, lastExtentWindow)
		}
	}
	return min(int64(at)*BlockSize, limit), kind, nil
}

type blockKind uint8

const (
	kindUnknown blockKind = iota // not in memory: the map tells
	kindData
	kindZero
)

// dirtyKindLocked returns the kind of the blocks from block on, as the batches have it, and how
// many are of that kind.
func (d *Disk) dirtyKindLocked(block, count uint64) (uint64, blockKind) {
	if d.pipe.forming == nil && len(d.pipe.queue) == 0 {
		return count, kindUnknown
	}
	count = min(count, dirtyWindow)
	kind := d.dirtyBlockKindLocked(block)
	n := uint64(1)
	for n < count && d.dirtyBlockKindLocked(block+n) == kind {
		n++
	}
	return n, kind
}

func (d *Disk) dirtyBlockKindLocked(block uint64) blockKind {
	if d.pipe.forming != nil {
		if k := d.pipe.forming.kind(block); k != kindUnknown {
			return k
		}
	}
	for i := len(d.pipe.queue) - 1; i >= 0; i-- {
		if k := d.pipe.queue[i].kind(block); k != kindUnknown {
			return k
		}
	}
	return kindUnknown
}

func (b *batch) kind(block uint64) blockKind {
	if _, ok := b.index[block]; ok {
		return kindData
	}
	if len(b.zeros) > 0 && b.zeros.has(block) {
		return kindZero
	}
	return kindUnknown
}

// nextExtent returns how many of the blocks from block on are alike in the map, and whether it
// holds content for them.
func (r *reader) nextExtent(ctx context.Context, block, count uint64) (uint64, bool, error) {
	var arr [64]blockmap.Piece
	pieces, err := r.m.Lookup(ctx, block, count, arr[:0])
	if err != nil {
		return 0, false, err
	}
	data := pieces[0].Seg.Kind != format.KindFree
	var n uint64
	for _, p := range pieces {
		if (p.Seg.Kind != format.KindFree) != data {
			break
		}
		n += uint64(p.Count)
	}
	return n, data, nil
}
