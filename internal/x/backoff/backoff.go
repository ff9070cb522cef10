// Package backoff spaces repeated attempts.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff gives out waits that double up to a bound, with jitter so that many don't come back in
// step. Not safe for concurrent use.
type Backoff struct{ min, max, cur time.Duration }

// New returns a Backoff whose waits grow from lo to hi.
func New(lo, hi time.Duration) *Backoff { return &Backoff{min: lo, max: hi, cur: lo} }

// Next returns how long to wait: between half and all of the present bound.
func (b *Backoff) Next() time.Duration {
	d := b.cur/2 + rand.N(b.cur/2+1)
	b.cur = min(2*b.cur, b.max)
	return d
}

// Reset begins anew, after a success.
func (b *Backoff) Reset() { b.cur = b.min }

// Sleep returns nil after d, or why ctx has ended, if that comes first.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
