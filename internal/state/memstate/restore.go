package memstate

import (
	"encoding/json"
	"io"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// restoreBump is how far a restored store's revisions lie beyond the snapshot's, so that no
// revision that was handed out after the snapshot is handed out again.
const restoreBump = 1_000_000_000

// Restore returns a new store with the keys of a snapshot. Every watch from before must list
// again, and revisions go on far beyond the snapshot's.
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
	for _, kv := range doc.Keys {
		s.keys[kv.Key] = kv
	}
	s.rev = doc.Revision + restoreBump
	s.compacted = s.rev
	return s, nil
}
