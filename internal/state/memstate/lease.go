package memstate

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Grant implements state.Store.
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (state.LeaseID, error) {
	if ttl <= 0 {
		return 0, errs.New(errs.Invalid, "a lease of %s", ttl)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enterLocked(ctx); err != nil {
		return 0, err
	}
	ttl = (ttl + time.Second - 1).Truncate(time.Second)
	s.nextLease++
	s.leases[s.nextLease] = &lease{ttl: ttl, deadline: s.cfg.Now().Add(ttl),
		keys: map[string]struct{}{}}
	s.wakeLocked() // a watch may have to wake earlier now
	return s.nextLease, nil
}

// KeepAlive implements state.Store.
func (s *Store) KeepAlive(ctx context.Context, id state.LeaseID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enterLocked(ctx); err != nil {
		return err
	}
	l, ok := s.leases[id]
	if !ok {
		return errs.New(errs.NotFound, "lease %d has ended", id)
	}
	l.deadline = s.cfg.Now().Add(l.ttl)
	return nil
}

// Revoke implements state.Store.
func (s *Store) Revoke(ctx context.Context, id state.LeaseID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enterLocked(ctx); err != nil {
		return err
	}
	s.endLocked(id)
	return nil
}

// Tick ends the leases whose time has come. A simulation calls it after moving its clock.
func (s *Store) Tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expireLocked()
}

// expireLocked goes by lease id, so that a seeded simulation sees the same revisions every time.
func (s *Store) expireLocked() {
	if s.closed || len(s.leases) == 0 {
		return
	}
	now := s.cfg.Now()
	for _, id := range slices.Sorted(maps.Keys(s.leases)) {
		if !now.Before(s.leases[id].deadline) {
			s.endLocked(id)
		}
	}
}

// endLocked deletes a lease and its keys, in one revision.
func (s *Store) endLocked(id state.LeaseID) {
	l, ok := s.leases[id]
	if !ok {
		return
	}
	var ops []state.Op
	for _, key := range slices.Sorted(maps.Keys(l.keys)) {
		ops = append(ops, state.Op{Key: key, Delete: true})
	}
	s.writeLocked(ops)
	delete(s.leases, id)
}

// untilExpiryLocked is how long a watch may sleep without missing the end of a lease; 0 means for
// ever.
func (s *Store) untilExpiryLocked() time.Duration {
	if !s.timers {
		return 0
	}
	var first time.Time
	for _, l := range s.leases {
		if first.IsZero() || l.deadline.Before(first) {
			first = l.deadline
		}
	}
	if first.IsZero() {
		return 0
	}
	return max(first.Sub(s.cfg.Now()), time.Millisecond)
}
