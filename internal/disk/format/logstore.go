package format

import (
	"slices"
	"strings"
	"time"
)

// FeatureLogStore is the incompatible feature of a head whose log is in a second store: a writer
// that doesn't know it would take the log for empty, and fence nobody.
const FeatureLogStore = "log-store"

const (
	// MaxLogRuns is how many attaches a head remembers that have not led to a map: of disks whose
	// writers die over and over before they have written one.
	MaxLogRuns = 1 << 16
	maxURL     = 2048 // bytes
	ulidLen    = 26
)

// LogStore says where a disk's log is, if not beside its other objects, and which logs there are to
// replay.
type LogStore struct {
	URL string `json:"url"`
	// ULID, that of the identity object there: which store it is, whatever its URL
	Binding string `json:"binding"`
	// of an open disk: one for each epoch from the log position's to its own
	Runs []LogRun `json:"runs,omitempty"`
}

// LogRun is one attachment, and so one log. That its session is in the log's keys keeps apart the
// logs of two copies of a disk.
type LogRun struct {
	Epoch   uint64 `json:"epoch"`
	Session string `json:"session"` // ULID
}

// LogIdentity is the object of a log store that says whose log is there. It is written before the
// disk is, and never changed. Without it nothing is read from the store, so that an emptied or
// wrong one isn't taken for an empty log.
type LogIdentity struct {
	Version  int      `json:"version"`
	Features []string `json:"features,omitempty"`
	UID      string   `json:"uid"`  // of the disk
	ID       string   `json:"id"`   // the owner's name for it; for people
	Path     string   `json:"path"` // in its pool, where it was made; for people
	// URL of that, if who made it knew: a copy of the pool has the same heads, and must leave the
	// log alone
	Pool    string    `json:"pool,omitempty"`
	Binding string    `json:"binding"` // ULID, as in the head
	Created time.Time `json:"created"`
}

// DecodeLogIdentity decodes and checks an identity object.
func DecodeLogIdentity(b []byte) (*LogIdentity, error) {
	var i LogIdentity
	if err := decodeStrict(b, &i, "log identity"); err != nil {
		return nil, err
	}
	if i.UID == "" || !isULID(i.Binding) || !ValidPath(i.Path) {
		return nil, corrupt("log identity: bad uid %q, path %q or binding %q", i.UID,
			i.Path, i.Binding)
	}
	return &i, nil
}

// SetLogStore says where the log is, with the feature that goes with it; nil: beside the disk's
// other objects.
func (h *Head) SetLogStore(s *LogStore) {
	h.LogStore = s
	h.Features = slices.DeleteFunc(slices.Clone(h.Features),
		func(f string) bool { return f == FeatureLogStore })
	if s != nil {
		h.Features = append(h.Features, FeatureLogStore)
	}
	if len(h.Features) == 0 {
		h.Features = nil
	}
}

// Session returns the session of an epoch whose log may have to be replayed.
func (s *LogStore) Session(epoch uint64) (string, bool) {
	i, ok := slices.BinarySearchFunc(s.Runs, epoch, func(r LogRun, epoch uint64) int {
		switch {
		case r.Epoch < epoch:
			return -1
		case r.Epoch > epoch:
			return 1
		}
		return 0
	})
	if !ok {
		return "", false
	}
	return s.Runs[i].Session, true
}

// With returns what it is with one more run, and without those before an epoch.
func (s *LogStore) With(run LogRun, from uint64) *LogStore {
	return &LogStore{URL: s.URL, Binding: s.Binding, Runs: append(s.since(from), run)}
}

// Since returns what it is without the runs before an epoch.
func (s *LogStore) Since(epoch uint64) *LogStore {
	return &LogStore{URL: s.URL, Binding: s.Binding, Runs: s.since(epoch)}
}

func (s *LogStore) since(epoch uint64) []LogRun {
	return slices.DeleteFunc(slices.Clone(s.Runs), func(r LogRun) bool { return r.Epoch < epoch })
}

// checkLogStore verifies that an open head names every log that an attach would replay, and that
// keys can be made of what it names.
func (h *Head) checkLogStore() error {
	s := h.LogStore
	if (s != nil) != slices.Contains(h.Features, FeatureLogStore) {
		return corrupt("head: log store and features disagree")
	}
	if s == nil {
		return nil
	}
	if s.URL == "" || len(s.URL) > maxURL ||
		strings.ContainsFunc(s.URL, func(r rune) bool { return r < ' ' || r == 0x7f }) ||
		!isULID(s.Binding) || !isULID(h.UID) {
		return corrupt("head: bad log store %q", s.URL)
	}
	if len(s.Runs) > MaxLogRuns {
		return corrupt("head: %d runs of the log", len(s.Runs))
	}
	for i, r := range s.Runs {
		if !isULID(r.Session) || r.Epoch == 0 || i > 0 && r.Epoch != s.Runs[i-1].Epoch+1 {
			return corrupt("head: bad run %d of the log", i)
		}
	}
	if n := len(s.Runs); n > 0 && s.Runs[n-1].Epoch != h.Epoch {
		return corrupt("head: the last run of the log is of epoch %d and not %d",
			s.Runs[n-1].Epoch, h.Epoch)
	}
	if h.State == StateOpen && (len(s.Runs) == 0 || s.Runs[0].Epoch > h.Log.Epoch) {
		return corrupt("head: runs of the log are missing")
	}
	return nil
}

// isULID reports whether s is a ULID as it is always written.
func isULID(s string) bool {
	if len(s) != ulidLen {
		return false
	}
	for _, c := range []byte(s) {
		if !strings.ContainsRune("0123456789ABCDEFGHJKMNPQRSTVWXYZ", rune(c)) {
			return false
		}
	}
	return s[0] <= '7'
}
