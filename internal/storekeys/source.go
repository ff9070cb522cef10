// Package storekeys keeps the credentials of the fleet's store for the server, and gives workers
// what they need of them: the server's own key, or sessions of a role that are narrower and end by
// themselves.
//
// Invariants: what a person brings is tried at the store before it is used, so that a slip changes
// nothing. A generation is never given to two keys, also over restarts of the server. No error and
// no log has a secret.
package storekeys

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/blob/s3blob"
	"github.com/sluice-platform/sluice/internal/blob/s3role"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	lookEvery = 2 * time.Second  // that the file is read again
	tryFor    = 10 * time.Second // that a new key may take to be tried
	triedKey  = "disks/.reachable"
)

// Config says where the credentials are, and what workers get.
type Config struct {
	Store    string        // URL
	File     string        // as the AWS tools have it, profile default; "": the SDK's usual chain
	Role     s3role.Role   // of workers; the zero value: they get the server's own
	Withhold bool          // workers get none
	Every    time.Duration // that the file is read again; default 2 s
	Log      *slog.Logger
}

// Source is the server's keys of the store. It implements s3blob.Keys and fleet.StoreKeys, and is
// safe for concurrent use.
type Source struct {
	cfg    Config
	store  s3blob.Config
	needed bool
	own    s3blob.Keys     // nil: the key is in a file
	role   *s3role.Assumer // nil: workers get the server's own

	mu         sync.Mutex
	key        s3blob.Key
	generation int64
	since      time.Time
	changed    chan struct{} // closed at the next generation
	refused    s3blob.Key    // the newest that the store didn't take
	keyError   string        // what is wrong with it; "": nothing
	roleError  string        // what is wrong with the role
}

var (
	_ s3blob.Keys     = (*Source)(nil)
	_ fleet.StoreKeys = (*Source)(nil)
)

// New returns the keys of a store, with those in the file read. Invalid: the configuration can't
// work; Denied: others can read the file.
func New(ctx context.Context, cfg Config) (*Source, error) {
	s := &Source{cfg: cfg, changed: make(chan struct{})}
	var err error
	if s.store, s.needed, err = blobs.S3(cfg.Store); err != nil {
		return nil, err
	}
	if !s.needed {
		if cfg.File != "" || cfg.Role.ARN != "" {
			return nil, errs.New(errs.Invalid, "the store %s takes no credentials", cfg.Store).
				WithRemedy("leave out --store-credentials-file and --store-role-arn")
		}
		s.take(s3blob.Key{})
		return s, nil
	}
	if cfg.Role.ARN == "" && (cfg.Role.Endpoint != "" || cfg.Role.Region != "") {
		return nil, errs.New(errs.Invalid, "an STS without --store-role-arn is not asked").
			WithRemedy("name the role of which workers get sessions")
	}
	if cfg.Role.ARN != "" {
		if s.role, err = s3role.New(cfg.Role, s.store, s); err != nil {
			return nil, err
		}
	}
	if cfg.File == "" {
		s.own = s3blob.OwnKeys(s.store)
		return s, nil
	}
	key, err := s3blob.ReadKeyFile(ctx, cfg.File)
	if err != nil {
		return nil, err
	}
	s.take(key)
	return s, nil
}

// Run reads the file again until ctx ends.
func (s *Source) Run(ctx context.Context) error {
	if !s.needed {
		return nil
	}
	tick := time.NewTicker(cmp.Or(s.cfg.Every, lookEvery))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.look(ctx)
		}
	}
}

// look takes what the file or the chain has by now. What can't be read, and what the store refuses,
// changes nothing.
func (s *Source) look(ctx context.Context) {
	if s.own != nil {
		key, err := s.own.Key(ctx)
		if err == nil {
			s.take(key)
		}
		s.say(ctx, err)
		return
	}
	key, err := s3blob.ReadKeyFile(ctx, s.cfg.File)
	s.mu.Lock()
	known := key.Same(s.key) || key.Same(s.refused)
	same := key.Same(s.key)
	s.mu.Unlock()
	if err == nil && known {
		if same {
			s.say(ctx, nil)
		}
		return
	}
	if err == nil {
		err = s.try(ctx, key)
	}
	if err == nil {
		s.take(key)
		s.cfg.Log.InfoContext(ctx, "credentials of the store read again", "file", s.cfg.File,
			"key_id", key.AccessKey)
	} else if errs.Is(err, errs.Denied) {
		s.mu.Lock()
		s.refused = key
		s.mu.Unlock()
	}
	if ctx.Err() == nil {
		s.say(ctx, err)
	}
}

// say keeps what is wrong, and logs it when it begins.
func (s *Source) say(ctx context.Context, err error) {
	now := ""
	if err != nil {
		now = err.Error()
	}
	s.mu.Lock()
	before := s.keyError
	s.keyError = now
	s.mu.Unlock()
	if now != "" && now != before {
		s.cfg.Log.WarnContext(ctx, "credentials of the store not read; the former ones count",
			"file", s.cfg.File, "error", err, "remedy", errs.RemedyOf(err))
	}
}

// try returns nil if the store takes a key.
func (s *Source) try(ctx context.Context, key s3blob.Key) error {
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	cfg := s.store
	cfg.Keys = fixed{key}
	store, err := s3blob.New(cfg)
	if err != nil {
		return err
	}
	defer store.Close()
	_, err = store.Get(ctx, triedKey, blob.All())
	if err != nil && !errs.Is(err, errs.NotFound) {
		return errs.Wrap(errs.KindOf(err), err, "try the new key %s at the store", key.AccessKey)
	}
	return nil
}

// take makes a key the present one. Generations begin with the clock, so that they differ from
// those of the server before this one.
func (s *Source) take(key s3blob.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.generation != 0 && key.Same(s.key) {
		s.key.Expires = key.Expires
		return
	}
	s.key, s.since, s.refused = key, time.Now(), s3blob.Key{}
	s.generation = max(s.generation+1, s.since.UnixMilli())
	close(s.changed)
	s.changed = make(chan struct{})
}

// Key implements s3blob.Keys.
func (s *Source) Key(ctx context.Context) (s3blob.Key, error) {
	if s.own != nil {
		key, err := s.own.Key(ctx)
		if err != nil {
			return key, err
		}
		s.take(key)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.key, nil
}

// Others implements s3blob.Keys.
func (s *Source) Others(ctx context.Context, used s3blob.Key) bool {
	if s.own != nil {
		if !s.own.Others(ctx, used) {
			return false
		}
	} else {
		s.look(ctx)
	}
	now, err := s.Key(ctx)
	return err == nil && !now.Same(used)
}

// Remedy implements s3blob.Keys.
func (s *Source) Remedy(expired bool) string {
	if s.own != nil {
		return s.own.Remedy(expired)
	}
	return "put a key that the store takes into " + s.cfg.File + ": it is read again by itself"
}

// StoreCredentials implements fleet.StoreKeys.
func (s *Source) StoreCredentials(ctx context.Context, worker fleet.WorkerID,
	have int64) (fleet.StoreCredentials, error) {
	if have == 0 && s.needed && s.own == nil {
		s.look(ctx) // whoever asks anew may have been refused
	}
	for {
		if _, err := s.Key(ctx); err != nil {
			return fleet.StoreCredentials{}, err
		}
		s.mu.Lock()
		key, generation, changed := s.key, s.generation, s.changed
		s.mu.Unlock()
		if generation != have {
			return s.give(ctx, worker, key, generation)
		}
		select {
		case <-ctx.Done():
			return fleet.StoreCredentials{Generation: have, Unchanged: true}, nil
		case <-changed:
		}
	}
}

// give returns what a worker gets of a key.
func (s *Source) give(ctx context.Context, worker fleet.WorkerID, key s3blob.Key,
	generation int64) (fleet.StoreCredentials, error) {
	if !s.needed {
		return fleet.StoreCredentials{Generation: generation, None: true}, nil
	}
	if s.cfg.Withhold {
		return fleet.StoreCredentials{Generation: generation, Own: true}, nil
	}
	if s.role != nil {
		var err error
		key, err = s.role.Session(ctx, string(worker))
		s.sayRole(ctx, worker, err)
		if err != nil {
			return fleet.StoreCredentials{}, err
		}
	}
	c := fleet.StoreCredentials{Generation: generation, AccessKey: key.AccessKey,
		SecretKey: key.SecretKey, SessionToken: key.SessionToken}
	if !key.Expires.IsZero() {
		c.TTL = max(time.Until(key.Expires), time.Second)
		if s.role != nil { // the STS may have another clock
			c.TTL = min(c.TTL, s.cfg.Role.Term)
		}
	}
	return c, nil
}

// sayRole keeps what is wrong with the role, and logs it.
func (s *Source) sayRole(ctx context.Context, worker fleet.WorkerID, err error) {
	if ctx.Err() != nil {
		return // the worker has gone, or is shut out
	}
	now := ""
	if err != nil {
		now = err.Error()
		s.cfg.Log.WarnContext(ctx, "no session of the store's role for a worker", "worker_id",
			string(worker), "error", err, "remedy", errs.RemedyOf(err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roleError = now
}

// StoreKeys implements fleet.StoreKeys.
func (s *Source) StoreKeys() fleet.StoreKeyView {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := fleet.StoreKeyView{Needed: s.needed, Role: s.cfg.Role.ARN, Withheld: s.cfg.Withhold,
		Generation: s.generation, KeyID: s.key.AccessKey, Since: s.since, Expires: s.key.Expires,
		Trouble: s.keyError}
	if s.roleError != "" {
		v.Trouble = s.roleError
	}
	switch {
	case s.needed && s.own != nil:
		v.Source = "own"
	case s.needed:
		v.Source = "file"
	}
	return v
}

// fixed is one key.
type fixed struct{ key s3blob.Key }

func (f fixed) Key(context.Context) (s3blob.Key, error) { return f.key, nil }
func (f fixed) Others(context.Context, s3blob.Key) bool { return false }
func (f fixed) Remedy(bool) string                      { return "try another key" }
