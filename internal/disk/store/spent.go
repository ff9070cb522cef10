package store

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
)

// Spent tells where the time of one request went, while it is under way, too: an attempt counts
// when it ends. What is not in it is the store's. The zero value is ready; it is of one request at
// a time, and may be read by anybody.
type Spent struct {
	pace, gateway atomic.Int64
	attempt       blob.Attempt // of the newest
}

// Pace is what was waited because the store asked for fewer requests.
func (s *Spent) Pace() time.Duration { return time.Duration(s.pace.Load()) }

// Gateway is what a store gateway and the way to it took, without what it waited for the store.
func (s *Spent) Gateway() time.Duration { return time.Duration(s.gateway.Load()) }

// within returns the context of attempts, by which a driver tells of its gateway.
func (s *Spent) within(ctx context.Context) context.Context {
	if s == nil {
		return ctx
	}
	return blob.WithAttempt(ctx, &s.attempt)
}

// paused notes a wait between attempts, which has ended now. Throttled: the store asked for it.
// Else it is of what failed the attempt before it.
func (s *Spent) paused(since time.Time, throttled bool) {
	switch {
	case s == nil:
	case throttled:
		s.pace.Add(int64(time.Since(since)))
	case s.attempt.Told && s.attempt.AtStore == 0:
		s.gateway.Add(int64(time.Since(since)))
	}
}

// begin notes that an attempt begins, and returns when.
func (s *Spent) begin() (began time.Time) {
	if s == nil {
		return began
	}
	s.attempt = blob.Attempt{}
	return time.Now()
}

// tried notes that an attempt has ended.
func (s *Spent) tried(began time.Time) {
	if s != nil && s.attempt.Told {
		s.gateway.Add(int64(max(0, time.Since(began)-s.attempt.AtStore)))
	}
}
