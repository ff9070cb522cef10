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
const snapshotFormat = "sluice-memstate-1"

type snapshotDoc struct {
	Format   string
	Revision int64
	Keys     []snapshotKey
	Leases   []snapshotLease
	Last     state.LeaseID
}

type snapshotKey struct {
	KV    state.KV
	Lease state.LeaseID
}

type snapshotLease struct {
	ID  state.LeaseID
	TTL int64 // nanoseconds
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
	doc := snapshotDoc{Format: snapshotFormat, Revision: s.rev, Last: s.nextLease}
	for _, key := range slices.Sorted(maps.Keys(s.keys)) {
		e := s.keys[key]
		doc.Keys = append(doc.Keys, snapshotKey{KV: cloneKV(e.kv), Lease: e.lease})
	}
	for _, id := range slices.Sorted(maps.Keys(s.leases)) {
		doc.Leases = append(doc.Leases, snapshotLease{ID: id, TTL: int64(s.leases[id].ttl)})
	}
	return doc, nil
}
