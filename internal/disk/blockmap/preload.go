package blockmap

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/disk/format"
)

const (
	maxPreload = 1024 // parts of one log object
	// directory, region, segment table; and once more for what was evicted meanwhile
	preloadRounds = 4
)

// Missing returns the parts of data runs below which pages are not in memory. Apply doesn't need
// those, and the next snapshot does: it returns what to Preload, so that who waits for a snapshot
// need not wait for them. Parts don't cross regions, and there are at most maxPreload.
func (m *Map) Missing(runs []format.Run) []format.Run {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var parts []format.Run
	for _, r := range runs {
		if r.Kind == format.RunZero {
			continue // may be all of the disk
		}
		for block, end := r.LBA, r.LBA+r.Count; block < end; {
			n := min(end-block, format.RegionBlocks-block%format.RegionBlocks)
			if m.belowLocked(block, uint32(n)).kind != 0 {
				parts = append(parts, format.Run{LBA: block, Count: n})
			}
			if block += n; len(parts) == maxPreload {
				return parts
			}
		}
	}
	return parts
}

// Preload reads what parts that Missing returned lack. It is advice: Complete reads what it could
// not.
func (m *Map) Preload(ctx context.Context, parts []format.Run) error {
	for range preloadRounds {
		wants := m.preloadWants(parts)
		if len(wants) == 0 {
			return nil
		}
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(maxParallelLoads)
		for w := range wants {
			g.Go(func() error { return m.load(gctx, w) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// preloadWants returns the first page that is missing below each part, and the page of the segment
// table that the next segment is likely to be in.
func (m *Map) preloadWants(parts []format.Run) map[want]bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	wants := make(map[want]bool)
	for _, p := range parts {
		if w := m.belowLocked(p.LBA, uint32(p.Count)); w.kind != 0 {
			wants[w] = true
		}
	}
	if i := m.segs.next / format.SegPageEntries; len(parts) > 0 && m.segs.absent(i) {
		wants[want{'S', i}] = true
	}
	return wants
}

// belowLocked returns the first page that is missing before all is known of a range within one
// region.
func (m *Map) belowLocked(block uint64, n uint32) want {
	if block >= m.blocks {
		return want{}
	}
	r, w := m.wholeRegionLocked(block)
	if r == nil {
		return w
	}
	b := uint32(block % format.RegionBlocks)
	for limit := b + n; b < limit; {
		e, until, ok := r.next(b, limit)
		if ok && !e.IsZero() {
			if i := e.Loc().Segment() / format.SegPageEntries; m.segs.absent(i) {
				return want{'S', i}
			}
		}
		b = until
	}
	return want{}
}
