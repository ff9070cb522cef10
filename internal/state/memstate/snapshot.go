package memstate

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"slices"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// snapshotFormat names the one format that Restore reads.
const snapshotFormat = "sluice-memstate-2"

type snapshotDoc struct {
	Format   string
	Revision int64
	Keys     []state.KV
}

// Snapshot implements state.Store.
func (s *Store) Snapshot(ctx context.Context, w io.Writer) error {
	doc, err := s.document(ctx)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(w).Encode(doc); err != nil {
		return errs.Wrap(errs.Unavailable, err, "write the snapshot")
	}
	return nil
}

func (s *Store) document(ctx context.Context) (snapshotDoc, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enterLocked(ctx); err != nil {
		return snapshotDoc{}, err
	}
	doc := snapshotDoc{Format: snapshotFormat, Revision: s.rev}
	for _, key := range slices.Sorted(maps.Keys(s.keys)) {
		doc.Keys = append(doc.Keys, cloneKV(s.keys[key]))
	}
	return doc, nil
}
