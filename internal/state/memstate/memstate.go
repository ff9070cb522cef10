// Package memstate is the in-memory twin of the fleet's state: the same revisions, watches and
// compaction as etcd, without a disk, for simulation and for tests of what stands on a state.Store.
//
// Invariants: it passes the same suite as etcd (statetest). Nothing happens by itself, and
// it starts no goroutine. A fault never tears a transaction: it happened wholly or not at all.
package memstate

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Fault is what happens to one Commit.
type Fault int

const (
	// FaultNone lets the Commit through.
	FaultNone Fault = iota
	// FaultLoseRequest answers Unavailable, and nothing has happened.
	FaultLoseRequest
	// FaultLoseResponse answers Unavailable although the transaction was applied (or refused).
	FaultLoseResponse
)

// Config tunes a Store. The zero value is a plain store.
type Config struct {
	// History is how many revisions a Watch can go back before compaction is automatic; 0 means
	// 10,000.
	History int
	// OnCommit, if set, decides the fate of each Commit. It is called without a lock held, possibly
	// concurrently.
	OnCommit func(state.Txn) Fault
}

// Store is the in-memory state. It is safe for concurrent use.
type Store struct {
	cfg Config

	mu        sync.Mutex
	rev       int64
	keys      map[string]state.KV
	history   []state.Batch // one revision each, ascending, all later than or equal to compacted
	compacted int64
	closed    bool
	breaks    int           // how often BreakWatches was called
	changed   chan struct{} // closed and replaced at each change of what watches wait for
}

var _ state.Store = (*Store)(nil)

// New returns an empty store at revision 1, like a new etcd.
func New(cfg Config) *Store {
	if cfg.History == 0 {
		cfg.History = 10_000
	}
	return &Store{cfg: cfg, rev: 1, changed: make(chan struct{}), keys: map[string]state.KV{}}
}

// enterLocked is the start of every operation: is there a store to ask?
func (s *Store) enterLocked(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return errs.Wrap(errs.Unavailable, err, "ask the state")
	}
	if s.closed {
		return errs.New(errs.Unavailable, "the state is closed")
	}
	return nil
}

// wakeLocked lets every watch look again.
func (s *Store) wakeLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Get implements state.Store.
func (s *Store) Get(ctx context.Context, key string) (state.KV, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enterLocked(ctx); err != nil {
		return state.KV{}, err
	}
	kv, ok := s.keys[key]
	if !ok {
		return state.KV{}, errs.New(errs.NotFound, "no key %q in the state", key)
	}
	return cloneKV(kv), nil
}

// List implements state.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]state.KV, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enterLocked(ctx); err != nil {
		return nil, 0, err
	}
	var kvs []state.KV
	for key, kv := range s.keys {
		if strings.HasPrefix(key, prefix) {
			kvs = append(kvs, cloneKV(kv))
		}
	}
	slices.SortFunc(kvs, func(a, b state.KV) int { return strings.Compare(a.Key, b.Key) })
	return kvs, s.rev, nil
}

// Compact forgets the changes before revision rev, as etcd does: a Watch that would need one of
// them ends with a Conflict. Compacting twice, or further back than before, does nothing.
func (s *Store) Compact(rev int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.compactLocked(min(rev, s.rev))
}

func (s *Store) compactLocked(rev int64) {
	if rev <= s.compacted {
		return
	}
	s.compacted = rev
	keep := slices.IndexFunc(s.history, func(b state.Batch) bool { return b.Revision >= rev })
	if keep < 0 {
		keep = len(s.history)
	}
	s.history = slices.Clone(s.history[keep:])
	s.wakeLocked()
}

// BreakWatches ends every present Watch with an error of kind Unavailable, as a lost connection
// does.
func (s *Store) BreakWatches() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.breaks++
	s.wakeLocked()
}

// Close ends all watches; every later call is Unavailable.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		s.wakeLocked()
	}
	return nil
}

func cloneKV(kv state.KV) state.KV {
	kv.Value = slices.Clone(kv.Value)
	return kv
}
