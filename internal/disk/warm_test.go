package disk

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// silentFrames reads from a store that counts who asks, and refuses them once it is opened.
func silentFrames(tasks *tasks, open <-chan struct{}) (f *frames, asked *atomic.Int32) {
	asked = &atomic.Int32{}
	refuse := func(ctx context.Context, _ decorate.Op, _ string) error {
		asked.Add(1)
		select {
		case <-open:
			return errs.New(errs.Denied, "not for you")
		case <-ctx.Done():
			return errs.Wrap(errs.Unavailable, ctx.Err(), "wait for the store")
		}
	}
	s := decorate.Intercept(memblob.New(), refuse)
	pages := &pageSource{store: oneShot(s), lineage: make([]format.Ancestor, 1)}
	return newFrames(pages, nil, tasks, &counters{}, 1<<20), asked
}

// isOver fails the test unless nothing is under way any more.
func (f *frames) isOver(t *testing.T) {
	t.Helper()
	if len(f.warming) != 0 || len(f.reading) != 0 || len(f.flights) != 0 {
		t.Errorf("left: %d warming, %d reading, %d flights", len(f.warming), len(f.reading),
			len(f.flights))
	}
}

// TestReadsAreBounded: the store is asked by so many requests at a time, and who waits for a turn
// is answered when the disk is detached.
func TestReadsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tasks := newTasks(t.Context())
		f, asked := silentFrames(tasks, nil)
		var parts []pending
		for i := range 2 * maxReads {
			seg := format.SegmentEntry{Seq: uint64(i)}
			parts = append(parts, pending{seg: seg, key: f.key(&seg, 0)})
		}
		var g errgroup.Group
		g.Go(func() error { return f.fetch(t.Context(), parts) })
		synctest.Wait()
		if n := asked.Load(); n != maxReads {
			t.Errorf("the store was asked %d times at once, want %d", n, maxReads)
		}
		tasks.stop()
		if err := g.Wait(); !errs.Is(err, errs.Unavailable) {
			t.Errorf("fetch: %v, want Unavailable", err)
		}
		f.isOver(t)
	})
}

// TestWarmingIsBounded: what nobody waits for yet is asked for by so many requests at a time, also
// where frames that are under way already cut a run into many.
func TestWarmingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open, tasks := make(chan struct{}), newTasks(t.Context())
		f, _ := silentFrames(tasks, open)
		f.warming = make(chan struct{}, 2)
		parts := func(from, step int) (all []pending) {
			for i := from; i < 2*framesPerGet; i += step {
				seg := format.SegmentEntry{Seq: 1}
				all = append(all, pending{seg: seg, key: f.key(&seg, uint32(i))})
			}
			return all
		}
		under, _ := f.claim(parts(0, 2), framesPerGet) // every other frame is asked for by others
		var g errgroup.Group
		all := parts(0, 1)
		g.Go(func() error { return f.warm(t.Context(), all) })
		synctest.Wait()
		if n := len(f.reading); n != 2 {
			t.Errorf("%d requests under way, want 2", n)
		}
		f.launch(under, func() {})
		close(open)
		if err := g.Wait(); !errs.Is(err, errs.Denied) {
			t.Errorf("warm: %v, want Denied", err)
		}
		tasks.stop()
		f.isOver(t)
		// of a disk that is detached: everybody is answered, and nothing is left either
		for range 3 {
			if err := f.warm(t.Context(), parts(0, 1)); err != nil {
				t.Errorf("after the end: %v", err)
			}
		}
		f.isOver(t)
	})
}
