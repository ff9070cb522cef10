package gatewayhttp

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// The bytes of bodies that are in memory at a time, by default.
const (
	// defaultShared is what all gateways of a process share.
	defaultShared = 256 << 20
	// shareOwn is what each gateway has for itself, whatever others do: room for one object of a
	// disk, so that one that is alone in small things never waits for anybody.
	shareOwn = 16 << 20
	// shareLimit is the most that one gateway may have, its own part included: room for what a disk
	// has under way, and less than half of what is shared.
	shareLimit = 112 << 20

	budgetPatience = 20 * time.Second // shorter than a client waits for an answer
	budgetRetry    = time.Second
)

// Budget bounds the bytes of bodies that gateways have in memory at a time, over all of them. Each
// gateway has a Share. It is safe for concurrent use.
type Budget struct {
	total int64

	mu      sync.Mutex
	used    int64     // of total: what shares have beyond their own part
	waiting []*waiter // in the order in which they came
}

// Share is one gateway's part of a Budget.
type Share struct {
	b    *Budget
	held int64 // under b.mu
}

type waiter struct {
	share *Share
	n     int64
	ready chan struct{} // closed once n is held
}

// NewBudget returns a budget of total bytes beside what each share has for itself; 0: 256 MiB.
func NewBudget(total int64) *Budget {
	if total <= 0 {
		total = defaultShared
	}
	return &Budget{total: max(total, defaultMaxBody)}
}

// Share returns a new share, which has nothing yet.
func (b *Budget) Share() *Share { return &Share{b: b} }

// take waits until n bytes may be held; free gives them back. Unavailable: they could not be had in
// time, which is the store asking for fewer requests.
func (s *Share) take(ctx context.Context, n int64) error {
	s.b.mu.Lock()
	if len(s.b.waiting) == 0 && s.tryLocked(n) {
		s.b.mu.Unlock()
		return nil
	}
	w := &waiter{share: s, n: n, ready: make(chan struct{})}
	s.b.waiting = append(s.b.waiting, w)
	s.b.grantLocked()
	s.b.mu.Unlock()
	patience := time.NewTimer(budgetPatience)
	defer patience.Stop()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	case <-patience.C:
	}
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	at := slices.Index(s.b.waiting, w)
	if at < 0 {
		return nil // granted at the last moment
	}
	s.b.waiting = slices.Delete(s.b.waiting, at, at+1)
	s.b.grantLocked() // it may have been what others waited behind
	if ctx.Err() != nil {
		return errs.Wrap(errs.Unavailable, ctx.Err(), "wait for the gateway's memory")
	}
	return errs.Wrap(errs.Unavailable, &blob.Throttled{After: budgetRetry},
		"the store gateway has %d bytes of this VM's requests in memory already", s.held)
}

// free gives n bytes back.
func (s *Share) free(n int64) {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.b.used -= beyond(s.held) - beyond(s.held-n)
	s.held -= n
	s.b.grantLocked()
}

// beyond is the part of what a share holds that isn't its own.
func beyond(held int64) int64 { return max(0, held-shareOwn) }

// tryLocked takes n bytes if they are free.
func (s *Share) tryLocked(n int64) bool {
	more := beyond(s.held+n) - beyond(s.held)
	if s.held > 0 && s.held+n > shareLimit || s.b.used+more > s.b.total {
		return false
	}
	s.b.used += more
	s.held += n
	return true
}

// grantLocked serves who waits, in order. Of a share that must wait nothing later goes first, so
// that small requests can't keep a big one waiting. When the common part is short, the first who
// waits for it is the next to have it; what fits into a share's own part goes on.
func (b *Budget) grantLocked() {
	behind := map[*Share]bool{}
	short := false
	b.waiting = slices.DeleteFunc(b.waiting, func(w *waiter) bool {
		s := w.share
		common := beyond(s.held+w.n) > beyond(s.held)
		if behind[s] || short && common || !s.tryLocked(w.n) {
			behind[s] = true
			short = short || common && (s.held == 0 || s.held+w.n <= shareLimit)
			return false
		}
		close(w.ready)
		return true
	})
}
