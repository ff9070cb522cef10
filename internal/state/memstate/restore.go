package memstate

import (
	"encoding/json"
	"io"
	"time"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// restoreBump is how far a restored store's revisions lie beyond the snapshot's, so that no
// revision that was handed out after the snapshot is handed out again.
const restoreBump = 1_000_000_000

// Restore returns a new store with the keys and leases of a snapshot. Leases begin anew, every
// watch from before must list again, and revisions go on far beyond the snapshot's.
func Restore(cfg Config, r io.Reader) (*Store, error) {
	var doc snapshotDoc
	if err := json.NewDecoder(r).Decode(&doc); err != nil {
		return nil, errs.Wrap(errs.Corrupt, err, "read the snapshot")
	}
	if doc.Format != snapshotFormat {
		return nil, errs.New(errs.Corrupt, "snapshot of format %q, not %q", doc.Format,
			snapshotFormat)
	}
	s := New(cfg)
	for _, l := range doc.Leases {
		ttl := time.Duration(l.TTL)
		s.leases[l.ID] = &lease{ttl: ttl, deadline: s.cfg.Now().Add(ttl),
			keys: map[string]struct{}{}}
	}
	for _, k := range doc.Keys {
		if err := s.adopt(k); err != nil {
			return nil, err
		}
	}
	s.rev = doc.Revision + restoreBump
	s.compacted = s.rev
	s.nextLease = doc.Last
	return s, nil
}

// adopt takes a key over as it was. The store is not shared yet, so no lock is needed.
func (s *Store) adopt(k snapshotKey) error {
	if k.Lease != 0 {
		l, ok := s.leases[k.Lease]
		if !ok {
			return errs.New(errs.Corrupt,
				"snapshot binds key %q to lease %d, which it does not hold", k.KV.Key, k.Lease)
		}
		l.keys[k.KV.Key] = struct{}{}
	}
	s.keys[k.KV.Key] = entry{kv: state.KV{
		Key: k.KV.Key, Value: k.KV.Value, CreateRev: k.KV.CreateRev, ModRevision: k.KV.ModRevision,
	}, lease: k.Lease}
	return nil
}
