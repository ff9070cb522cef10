package memstate

import (
	"context"
	"slices"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Commit implements state.Store.
func (s *Store) Commit(ctx context.Context, txn state.Txn) (int64, error) {
	if err := state.Check(txn); err != nil {
		return 0, err
	}
	fault := FaultNone
	if s.cfg.OnCommit != nil {
		fault = s.cfg.OnCommit(txn)
	}
	if fault == FaultLoseRequest {
		return 0, errs.New(errs.Unavailable, "the request to the state was lost")
	}
	rev, err := s.apply(ctx, txn)
	if fault == FaultLoseResponse { // a refusal is lost as well
		return 0, errs.New(errs.Unavailable, "the answer of the state was lost")
	}
	return rev, err
}

func (s *Store) apply(ctx context.Context, txn state.Txn) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enterLocked(ctx); err != nil {
		return 0, err
	}
	for _, c := range txn.If {
		if have := s.keys[c.Key].ModRevision; have != c.ModRevision {
			return 0, errs.New(errs.Conflict, "key %q has changed since it was read", c.Key)
		}
	}
	s.writeLocked(txn.Then)
	return s.rev, nil
}

// writeLocked applies ops as one revision, if they change anything.
func (s *Store) writeLocked(ops []state.Op) {
	next := s.rev + 1
	var events []state.Event
	for _, op := range ops {
		old, had := s.keys[op.Key]
		if op.Delete {
			if had {
				delete(s.keys, op.Key)
				events = append(events, state.Event{KV: state.KV{Key: op.Key, ModRevision: next},
					Deleted: true})
			}
			continue
		}
		kv := state.KV{Key: op.Key, Value: slices.Clone(op.Value), CreateRev: next,
			ModRevision: next}
		if had {
			kv.CreateRev = old.CreateRev
		}
		s.keys[op.Key] = kv
		events = append(events, state.Event{KV: kv})
	}
	if len(events) == 0 {
		return
	}
	s.rev = next
	s.history = append(s.history, state.Batch{Events: events, Revision: next})
	if len(s.history) > 2*s.cfg.History { // in halves, so that the copying is amortised
		s.compactLocked(s.history[len(s.history)-s.cfg.History].Revision)
	}
	s.wakeLocked()
}
