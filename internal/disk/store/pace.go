package store

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// pace says how fast the store may be asked. A store that asks for fewer requests gets half as many
// uploads at a time. Before the time that it names it gets no request at all. Each upload that it
// then takes without complaint adds a part of one, up to as many as were configured. Safe for
// concurrent use.
type pace struct {
	most int // uploads at a time

	mu    sync.Mutex
	limit float64
	cut   time.Time // when it was last halved
	until time.Time // no request before
}

// paceCut is how long a cut has to take effect before there is another: answers to what was sent
// before it say nothing new.
const paceCut = time.Second

func newPace(most int) *pace { return &pace{most: most, limit: float64(most)} }

// uploads returns how many may be under way, at least 1.
func (p *pace) uploads() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(1, int(p.limit))
}

// throttled slows down: the store asks for fewer requests, and for none within after.
func (p *pace) throttled(after time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if until := now.Add(after); until.After(p.until) {
		p.until = until
	}
	if now.Sub(p.cut) >= paceCut {
		p.cut, p.limit = now, max(1, p.limit/2)
	}
}

// uploaded speeds up a little: the store took an upload at once.
func (p *pace) uploaded() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit = min(p.limit+1/max(1, p.limit), float64(p.most))
}

// wait returns when the store may be asked again, as far as it has said. It spreads all who wait
// for the same moment over the next part of a second.
func (p *pace) wait(ctx context.Context, spent *Spent) error {
	p.mu.Lock()
	began := time.Now()
	left := p.until.Sub(began)
	p.mu.Unlock()
	if left <= 0 {
		return nil
	}
	err := backoff.Sleep(ctx, left+rand.N(firstThrottle))
	spent.paused(began, true)
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "wait until the store may be asked again")
	}
	return nil
}
