// Package leader elects one server among several by a key under a lease.
//
// Invariants: a term is named by the revision at which its key was written, its fence; every commit made
// through Term.Guard carries the fence as a condition, so that a deposed leader's write fails however late
// it arrives. The lease gives liveness alone: for a moment two servers may believe that they lead, but only
// one can write.
package leader

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	defaultTTL = 5 * time.Second
	retryPause = 100 * time.Millisecond
)

// Config says for what, and as whom, to stand.
type Config struct {
	// Key is the key that the leader holds. No other key may begin with it.
	Key string
	// ID names this server. Two servers with one ID are two candidates like any others, but for this: a
	// server that starts takes over the term of its own former life without waiting for its lease to end.
	ID string
	// Address is told to whoever asks for the leader; it may be empty.
	Address string
	// TTL is how long a silent leader stays leader; at least 1 s, whole seconds, 0 for 5 s.
	TTL time.Duration
	Log *slog.Logger
}

// Holder is the record under the leader's key.
type Holder struct {
	ID      string    `json:"id"`
	Address string    `json:"address,omitempty"`
	Since   time.Time `json:"since"`
	Nonce   string    `json:"nonce"` // tells one's own lost answer from another's success
}

// Elector stands for one leadership, term after term. Use it from one goroutine.
type Elector struct {
	cfg   Config
	store state.Store
	stood bool // a first term has been won: whoever holds the key with our ID now is not our former life
}

// New returns an elector. Error kind: Invalid.
func New(store state.Store, cfg Config) (*Elector, error) {
	if cfg.Key == "" || cfg.ID == "" {
		return nil, errs.New(errs.Invalid, "an election needs a key and a candidate's id")
	}
	if cfg.TTL == 0 {
		cfg.TTL = defaultTTL
	}
	if cfg.TTL < time.Second || cfg.TTL%time.Second != 0 {
		return nil, errs.New(errs.Invalid, "a leader's lease of %s; it takes whole seconds, and at least one", cfg.TTL)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Elector{cfg: cfg, store: store}, nil
}

// Current returns the present leader. Error kinds: NotFound where there is none, Corrupt, Unavailable.
func Current(ctx context.Context, store state.Store, key string) (Holder, error) {
	kv, err := store.Get(ctx, key)
	if err != nil {
		return Holder{}, err
	}
	return parseHolder(kv)
}

func parseHolder(kv state.KV) (Holder, error) {
	var h Holder
	if err := json.Unmarshal(kv.Value, &h); err != nil {
		return Holder{}, errs.Wrap(errs.Corrupt, err, "decode the leader's record at key %q", kv.Key)
	}
	return h, nil
}

// Run campaigns, calls lead with each term won, and campaigns again when a term is lost. lead's context ends
// with the term, and lead must return then; a term ends no sooner than its lead has returned. Run returns
// nil when ctx ends, and lead's error where lead returns before its term is lost; the term is resigned
// either way.
func (e *Elector) Run(ctx context.Context, lead func(ctx context.Context, term *Term) error) error {
	for {
		term, err := e.Campaign(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		err = e.serve(ctx, term, lead)
		lost := term.ended()
		term.resignBounded(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if !lost {
			return err
		}
		e.cfg.Log.WarnContext(ctx, "leadership lost", "fence", term.fence.ModRevision, "error", term.Cause())
	}
}

func (e *Elector) serve(ctx context.Context, term *Term, lead func(context.Context, *Term) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(term.life, func() { cancel(term.Cause()) })()
	return lead(ctx, term)
}

// Campaign waits until this server leads, and returns its term. It rides out an unavailable state. The
// error is that ctx ended, of kind Unavailable, or a fault that waiting doesn't mend.
func (e *Elector) Campaign(ctx context.Context) (*Term, error) {
	for {
		term, err := e.attempt(ctx)
		switch {
		case term != nil:
			e.stood = true
			e.cfg.Log.InfoContext(ctx, "leadership won", "fence", term.fence.ModRevision, "leader_id", e.cfg.ID)
			return term, nil
		case ctx.Err() != nil:
			return nil, errs.Wrap(errs.Unavailable, ctx.Err(), "campaign for %s", e.cfg.Key)
		case err != nil && !errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.Conflict) && !errs.Is(err, errs.NotFound):
			return nil, err
		case err != nil:
			e.cfg.Log.DebugContext(ctx, "campaign goes on", "error", err)
			timer := time.NewTimer(retryPause)
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
			timer.Stop()
		}
	}
}

// attempt looks at the key, and takes it where it is free or was our own; else it waits until the key goes.
// It returns neither term nor error where it is time to look again.
func (e *Elector) attempt(ctx context.Context) (*Term, error) {
	kvs, rev, err := e.store.List(ctx, e.cfg.Key)
	if err != nil {
		return nil, err
	}
	seen := state.Cond{Key: e.cfg.Key}
	for _, kv := range kvs {
		if kv.Key != e.cfg.Key {
			continue
		}
		holder, err := parseHolder(kv)
		if err != nil {
			return nil, err
		}
		if holder.ID != e.cfg.ID || e.stood {
			return nil, e.awaitRelease(ctx, rev)
		}
		seen.ModRevision = kv.ModRevision
	}
	return e.seize(ctx, seen)
}

// awaitRelease waits until the key is deleted after revision rev.
func (e *Elector) awaitRelease(ctx context.Context, rev int64) error {
	err := e.store.Watch(ctx, e.cfg.Key, rev, func(b state.Batch) bool {
		for _, ev := range b.Events {
			if ev.Key == e.cfg.Key && ev.Deleted {
				return false
			}
		}
		return true
	})
	if errs.Is(err, errs.Conflict) {
		return nil // compacted: look again
	}
	return err
}

// seize writes the key under a new lease if it is still as seen.
func (e *Elector) seize(ctx context.Context, seen state.Cond) (*Term, error) {
	granted := time.Now()
	lease, err := e.store.Grant(ctx, e.cfg.TTL)
	if err != nil {
		return nil, err
	}
	nonce := rand.Text()
	value, err := json.Marshal(Holder{ID: e.cfg.ID, Address: e.cfg.Address, Since: granted.UTC(), Nonce: nonce})
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "encode the leader's record")
	}
	rev, err := e.store.Commit(ctx, state.Txn{
		If:   []state.Cond{seen},
		Then: []state.Op{{Key: e.cfg.Key, Value: value, Lease: lease}},
	})
	if errs.Is(err, errs.Unavailable) && ctx.Err() == nil {
		rev, err = e.recall(ctx, nonce, err)
	}
	if err != nil {
		revokeBounded(ctx, e.store, lease) // and with it the key, had the write happened after all
		return nil, err
	}
	return newTerm(e, state.Cond{Key: e.cfg.Key, ModRevision: rev}, lease, granted), nil
}

// recall finds out whether a commit whose answer was lost has happened.
func (e *Elector) recall(ctx context.Context, nonce string, lost error) (int64, error) {
	kv, err := e.store.Get(ctx, e.cfg.Key)
	if err != nil {
		return 0, lost
	}
	holder, err := parseHolder(kv)
	if err != nil || holder.Nonce != nonce {
		return 0, lost
	}
	return kv.ModRevision, nil
}

// revokeBounded gives a lease back as well as it can; if it can't, the lease ends by itself.
func revokeBounded(ctx context.Context, store state.Store, lease state.LeaseID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = store.Revoke(ctx, lease)
}
