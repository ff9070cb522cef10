package store

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	hedgeSamples = 128 // latencies remembered of each class of sizes
	hedgeLearn   = 32  // latencies seen before the first hedge
	// of the requests, at most; the rest of what is due is left to wait
	hedgeShare = 0.05
	hedgeBurst = 8         // hedges that may be saved up
	hedgeSmall = 256 << 10 // bytes; larger reads have latencies of their own
	// latencies after which the 95th percentile is computed again
	hedgeRecalc = hedgeLearn / 4
	hedgeFloor  = 2 * time.Millisecond // below that a second request can't gain what it costs
)

// hedge decides when a slow read is worth a second request: after the store's own 95th percentile,
// and for a small share of the requests. A store that is slow as a whole is not asked twice as
// much. Only reads of objects that never change are hedged, writes never. Safe for concurrent use.
type hedge struct {
	mu      sync.Mutex
	classes [2]latencies
	credit  float64
}

// latencies are the newest ones of one class of sizes.
type latencies struct {
	ring [hedgeSamples]time.Duration
	n    int // ever seen
	p95  time.Duration
}

func (h *hedge) class(r blob.Range) *latencies {
	if r.Length >= 0 && r.Length <= hedgeSmall {
		return &h.classes[0]
	}
	return &h.classes[1]
}

// note records how long a read took, or that it took longer than that.
func (h *hedge) note(r blob.Range, took time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.credit = min(h.credit+hedgeShare, hedgeBurst)
	l := h.class(r)
	l.ring[l.n%hedgeSamples] = took
	l.n++
	if l.n%hedgeRecalc == 0 {
		s := slices.Clone(l.ring[:min(l.n, hedgeSamples)])
		slices.Sort(s)
		l.p95 = s[len(s)*95/100]
	}
}

// after returns how long to wait for an answer before asking again; 0: not yet known.
func (h *hedge) after(r blob.Range) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.class(r)
	if l.n < hedgeLearn {
		return 0
	}
	return max(l.p95, hedgeFloor)
}

// spend takes the credit for one more request, if there is any.
func (h *hedge) spend() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.credit < 1 {
		return false
	}
	h.credit--
	return true
}

// getHedged makes one attempt at a read, of one or two requests.
func (c *Client) getHedged(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	wait := time.Duration(0)
	if c.spawn != nil {
		wait = c.hedge.after(r)
	}
	start := time.Now()
	if wait == 0 {
		obj, err := c.TryGet(ctx, key, r)
		if err == nil {
			c.hedge.note(r, time.Since(start))
		}
		return obj, err
	}
	obj, err := c.race(ctx, key, r, wait)
	if err == nil {
		// Where the second request won, the first took at least as long.
		c.hedge.note(r, time.Since(start))
	}
	return obj, err
}

type getAnswer struct {
	obj    blob.Object
	err    error
	second bool
}

// race makes a request, and after wait another one, and returns the first good answer. It cancels
// the loser, for which only the end of the disk waits.
func (c *Client) race(
	ctx context.Context, key string, r blob.Range, wait time.Duration,
) (blob.Object, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan getAnswer, 2)
	ask := func(second bool) bool {
		return c.spawn(func(context.Context) {
			obj, err := c.TryGet(ctx, key, r)
			answers <- getAnswer{obj, err, second}
		})
	}
	if !ask(false) {
		return blob.Object{}, errs.New(errs.Unavailable, "the disk is detached")
	}
	late := time.NewTimer(wait)
	defer late.Stop()
	for asked := 1; ; {
		select {
		case <-late.C:
			if c.hedge.spend() && ask(true) {
				c.counters.hedges.Add(1)
				asked++
			}
		case a := <-answers:
			asked--
			if a.err != nil && errs.Is(a.err, errs.Unavailable) && asked > 0 {
				continue // the other one may do better
			}
			if a.second && a.err == nil {
				c.counters.hedgeWins.Add(1)
			}
			return a.obj, a.err
		}
	}
}
