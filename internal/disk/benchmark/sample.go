package benchmark

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// sample is the time of each operation of a step, and of all.
type sample struct {
	each  []time.Duration
	bytes int64 // of all
	took  time.Duration
}

func (s *sample) result(name string) Result {
	slices.Sort(s.each)
	secs := max(s.took.Seconds(), 1e-9)
	return Result{Name: name, Ops: len(s.each), P50MS: s.quantile(0.5), P99MS: s.quantile(0.99),
		OpsPerSec: float64(len(s.each)) / secs, BytesPerSec: float64(s.bytes) / secs}
}

// quantile returns one of the sorted times in milliseconds; 0 if there are none.
func (s *sample) quantile(q float64) float64 {
	if len(s.each) == 0 {
		return 0
	}
	return s.each[min(len(s.each)-1, int(q*float64(len(s.each))))].Seconds() * 1000
}

// load says how often to do something, and how many do it at a time.
type load struct {
	workers int
	ops     int           // in all; 0: until the time is over
	time    time.Duration // after which none begins; 0: until all are done
	bytes   int64         // that one moves
}

// drive does op until the load is done, and then end, whose time counts too; end may be nil.
func (l load) drive(ctx context.Context, op func(ctx context.Context, i int) error,
	end func(context.Context) error) (s sample, err error) {
	g, gctx := errgroup.WithContext(ctx)
	start := time.Now()
	next, mu := 0, sync.Mutex{}
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		if gctx.Err() != nil || (l.ops > 0 && next >= l.ops) ||
			(l.time > 0 && time.Since(start) >= l.time) {
			return 0, false
		}
		next++
		return next - 1, true
	}
	for range l.workers {
		g.Go(func() error {
			for i, ok := take(); ok; i, ok = take() {
				begun := time.Now()
				if err := op(gctx, i); err != nil {
					return err
				}
				took := time.Since(begun)
				mu.Lock()
				s.each = append(s.each, took)
				mu.Unlock()
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return s, err
	}
	if err := ctx.Err(); err != nil {
		return s, err
	}
	if end != nil {
		err = end(ctx)
	}
	s.took, s.bytes = time.Since(start), l.bytes*int64(len(s.each))
	return s, err
}
