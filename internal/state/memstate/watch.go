package memstate

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Watch implements state.Store.
func (s *Store) Watch(ctx context.Context, prefix string, from int64,
	yield func(state.Batch) bool) error {
	s.mu.Lock()
	breaks := s.breaks
	s.mu.Unlock()
	for {
		batches, upTo, changed, err := s.since(ctx, prefix, from, breaks)
		if err != nil {
			return err
		}
		for _, b := range batches {
			if !yield(b) {
				return nil
			}
		}
		from = upTo
		if len(batches) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return errs.Wrap(errs.Unavailable, ctx.Err(), "watch the state")
		case <-changed:
		}
	}
}

// since returns the batches after revision from, the revision up to which they are all there are,
// and what to wait for when there are none.
func (s *Store) since(
	ctx context.Context, prefix string, from int64, breaks int,
) (batches []state.Batch, upTo int64, changed <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enterLocked(ctx); err != nil {
		return nil, 0, nil, err
	}
	if s.breaks != breaks {
		return nil, 0, nil, errs.New(errs.Unavailable, "the watch of %q was cut off", prefix)
	}
	if from+1 < s.compacted {
		return nil, 0, nil, errs.New(errs.Conflict,
			"revision %d is compacted; the oldest kept is %d", from, s.compacted)
	}
	start, _ := slices.BinarySearchFunc(s.history, from+1, func(b state.Batch, rev int64) int {
		return cmp.Compare(b.Revision, rev)
	})
	for _, b := range s.history[start:] {
		if b, ok := filter(b, prefix); ok {
			batches = append(batches, b)
		}
	}
	return batches, max(from, s.rev), s.changed, nil
}

// filter copies what a batch holds under prefix.
func filter(b state.Batch, prefix string) (state.Batch, bool) {
	out := state.Batch{Revision: b.Revision}
	for _, ev := range b.Events {
		if strings.HasPrefix(ev.Key, prefix) {
			ev.KV = cloneKV(ev.KV)
			out.Events = append(out.Events, ev)
		}
	}
	return out, len(out.Events) > 0
}
