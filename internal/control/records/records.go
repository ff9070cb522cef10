package records

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Change is a record that has changed, or gone.
type Change struct {
	Kind Name
	ID   string
}

// Config is what Records need.
type Config struct {
	Store state.Store
	Log   *slog.Logger
	Now   func() time.Time
	// Retry is how long to wait before a state that can't be read is read again.
	Retry time.Duration
	// Changed is told of changes once they are in the copy, and also, with none, of a transaction
	// or a watch that brought nothing new. It must not commit.
	Changed func([]Change)
	// Ended is told of moves that this process has ended, once that is durable. It must not commit.
	Ended func([]fleet.Move)
}

// Records are the fleet's records. Safe for concurrent use.
type Records struct {
	cfg    Config
	loaded atomic.Bool

	Machines    *Kind[fleet.MachineID, fleet.Machine]
	FullNames   *Kind[string, fleet.MachineID]
	Networks    *Kind[fleet.NetworkName, fleet.Network]
	Workers     *Kind[fleet.WorkerID, fleet.Worker]
	Allocations *Kind[fleet.WorkerID, fleet.Allocation]
	Moves       *Kind[fleet.MoveID, fleet.Move]
	Drains      *Kind[fleet.DrainID, fleet.Drain]
	Images      *Kind[fleet.ImageName, fleet.Image]
	Locks       *Kind[string, fleet.MoveID]
	Tombstones  *Kind[fleet.MachineID, Tombstone]
	Tokens      *Kind[fleet.TokenID, fleet.Token]
	Identities  *Kind[fleet.WorkerID, fleet.WorkerIdentity]
	JoinTokens  *Kind[string, fleet.JoinToken]
	Secrets     *Kind[string, fleet.Secret]
	Quotas      *Kind[string, fleet.Quota] // by the ids of their scopes
	Usage       *Kind[string, Usage]       // as Quotas
	counters    *Kind[string, Counters]

	mu    sync.RWMutex
	kinds []kind // all of the above
	// gone has the revision at which records were deleted, by key, so that an older change that
	// arrives late doesn't bring them back. Forgotten once the watch is past it.
	gone    map[string]int64
	indices indices
}

// New returns records that have not been read yet; see Load and Follow.
func New(cfg Config) *Records {
	r := &Records{cfg: cfg, gone: map[string]int64{}, indices: newIndices()}
	r.Machines = add[fleet.MachineID](r, Machines, r.indices.machine)
	r.FullNames = add[string, fleet.MachineID](r, FullNames, nil)
	r.Networks = add[fleet.NetworkName](r, Networks, r.indices.network)
	r.Workers = add[fleet.WorkerID](r, Workers, r.indices.worker)
	r.Allocations = add[fleet.WorkerID](r, Allocations, r.indices.allocation)
	r.Moves = add[fleet.MoveID](r, Moves, r.indices.move)
	r.Drains = add[fleet.DrainID, fleet.Drain](r, Drains, nil)
	r.Images = add[fleet.ImageName, fleet.Image](r, Images, nil)
	r.Locks = add[string](r, Locks, r.indices.lock)
	r.Tombstones = add[fleet.MachineID, Tombstone](r, Tombstones, nil)
	r.Tokens = add[fleet.TokenID, fleet.Token](r, Tokens, nil)
	r.Identities = add[fleet.WorkerID](r, Identities, r.indices.identity)
	r.JoinTokens = add[string, fleet.JoinToken](r, JoinTokens, nil)
	r.Secrets = add[string](r, Secrets, r.indices.secret)
	r.Quotas = add[string, fleet.Quota](r, Quotas, nil)
	r.Usage = add[string, Usage](r, Usages, nil)
	r.counters = add[string, Counters](r, Meta, nil)
	r.counters.only = countersID
	return r
}

func add[ID ~string, T any](r *Records, name Name,
	index func(id string, old, now *T)) *Kind[ID, T] {
	k := &Kind[ID, T]{mu: &r.mu, dir: name.dir(), rows: map[ID]*Row[T]{}, index: index}
	r.kinds = append(r.kinds, k)
	return k
}

// Loaded reports whether the state has been read.
func (r *Records) Loaded() bool { return r.loaded.Load() }

// Probe fails unless the state answers.
func (r *Records) Probe(ctx context.Context) error {
	_, err := r.cfg.Store.Get(ctx, r.Counters().key)
	if errs.Is(err, errs.NotFound) {
		return nil
	}
	return err
}

// Counters returns the record of the counters.
func (r *Records) Counters() Row[Counters] {
	row, _ := r.counters.Get(countersID)
	return row
}

// History returns the record of a machine's newest events, oldest first. It is read from the state.
func (r *Records) History(ctx context.Context,
	id fleet.MachineID) (Row[[]fleet.MachineEvent], error) {
	row := Row[[]fleet.MachineEvent]{key: historyKey(id)}
	kv, err := r.cfg.Store.Get(ctx, row.key)
	if errs.Is(err, errs.NotFound) {
		return row, nil
	}
	if err != nil {
		return row, err
	}
	row.Rev = kv.ModRevision
	return row, decode(kv, &row.Val)
}

// NewHistory returns the row of a history that must not exist yet.
func NewHistory(id fleet.MachineID) Row[[]fleet.MachineEvent] {
	return Row[[]fleet.MachineEvent]{key: historyKey(id)}
}

func historyKey(id fleet.MachineID) string { return histories.dir() + string(id) }

// apply takes the changes of one transaction in together, each unless the copy has a newer one of
// that record, and tells of those that it took.
func (r *Records) apply(events ...state.Event) error {
	var changed []Change
	err := func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		defer r.settleLocked()
		for _, ev := range events {
			if err := r.applyLocked(ev, &changed); err != nil {
				return err
			}
		}
		return nil
	}()
	r.cfg.Changed(changed)
	return err
}

func (r *Records) applyLocked(ev state.Event, changed *[]Change) error {
	if gone, ok := r.gone[ev.Key]; ok {
		if ev.ModRevision <= gone {
			return nil
		}
		delete(r.gone, ev.Key)
	}
	k, id := r.kindOf(ev.Key)
	if k == nil {
		return nil // of a kind that is not kept in memory, or not known
	}
	took, err := k.applyLocked(id, ev)
	if !took {
		return err
	}
	if ev.Deleted {
		r.gone[ev.Key] = ev.ModRevision
	}
	*changed = append(*changed, Change{nameOf(k), id})
	return nil
}

// kindOf returns the kind of a key's record, and its id; nil if there is no such kind.
func (r *Records) kindOf(key string) (kind, string) {
	dir, id := splitKey(key)
	for _, k := range r.kinds {
		if k.dirName() == dir {
			return k, id
		}
	}
	return nil, id
}

func nameOf(k kind) Name {
	dir := k.dirName()
	return Name(dir[len(root) : len(dir)-1])
}

// replaceLocked replaces the copy by a listing at revision rev. What is newer than the listing
// stays.
func (r *Records) replaceLocked(kvs []state.KV, rev int64, changed *[]Change) error {
	defer r.settleLocked()
	listed := make(map[string]bool, len(kvs))
	for _, kv := range kvs {
		listed[kv.Key] = true
		if err := r.applyLocked(state.Event{KV: kv}, changed); err != nil {
			return err
		}
	}
	for _, key := range r.keysLocked() {
		if listed[key] {
			continue
		}
		ev := state.Event{KV: state.KV{Key: key, ModRevision: rev}, Deleted: true}
		if err := r.applyLocked(ev, changed); err != nil {
			return err
		}
	}
	r.forgetLocked(rev)
	return nil
}

func (r *Records) keysLocked() []string {
	var keys []string
	for _, k := range r.kinds {
		for _, id := range k.idsLocked() {
			keys = append(keys, k.dirName()+id)
		}
	}
	slices.Sort(keys)
	return keys
}

// missing takes in that a record doesn't exist now, at an unknown revision later than the copy's
// own.
func (r *Records) missing(key string) error {
	var changed []Change
	err := func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		defer r.settleLocked()
		k, id := r.kindOf(key)
		if k == nil || k.revLocked(id) == 0 {
			return nil
		}
		rev := k.revLocked(id)
		ev := state.Event{KV: state.KV{Key: key, ModRevision: rev + 1}, Deleted: true}
		err := r.applyLocked(ev, &changed)
		r.gone[key] = rev // all that is surely older than the deletion
		return err
	}()
	r.cfg.Changed(changed)
	return err
}

// forgetLocked drops what is remembered of deletions at or before rev: the watch has passed them.
func (r *Records) forgetLocked(rev int64) {
	maps.DeleteFunc(r.gone, func(_ string, gone int64) bool { return gone <= rev })
}
