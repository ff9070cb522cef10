// Package storekey holds a worker's credentials of the fleet's store: those that the server gives
// it, or its host's own.
//
// Invariants: what the server gives is in this process's memory and in a keyring of the kernel's,
// and nowhere else: in no file, log, report, command line or environment. A key that is held is
// used for as long as there is no newer one, whatever the clock says: the store decides.
package storekey

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/blob/s3blob"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	firstWait = 10 * time.Second // of a request, for credentials, at most
	// between two questions whether there are others than those that the store refuses
	askAgain = time.Second
	retry    = time.Second // after a question that failed
	retryMax = 30 * time.Second
	// ownAgain is how often a server is asked that doesn't know the question yet.
	ownAgain = time.Minute
)

// Config of a Holder.
type Config struct {
	// Ask asks the server: it answers once the generation differs from have, or with Unchanged.
	Ask func(ctx context.Context, have int64) (fleet.StoreCredentials, error)
	// Own are the host's.
	Own s3blob.Keys
	// OnlyOwn: the server isn't asked. OnlyServers: the host's are never used.
	OnlyOwn, OnlyServers bool
	Kept                 Kept // what outlives the daemon; nil: nothing does
	Log                  *slog.Logger
}

// Kept outlives a daemon, and not its host. Safe for concurrent use.
type Kept interface {
	// Keep keeps b for as long as ttl.
	Keep(b []byte, ttl time.Duration) error
	// Recall returns what is kept; NotFound: nothing.
	Recall() ([]byte, error)
	Forget() error
}

// Holder is a worker's s3blob.Keys. Safe for concurrent use.
type Holder struct {
	cfg Config

	mu      sync.Mutex
	held    held
	got     chan struct{}      // closed at the next answer of the server
	cut     context.CancelFunc // ends the present question; nil: there is none
	anew    bool               // the next question is for others than those held
	asked   time.Time          // when anew was asked for last
	waiting bool               // the answer to that hasn't come
	since   time.Time          // without credentials, or with old ones
	failing error              // of the last question; nil: it was answered
}

// held is what the server gave last.
type held struct {
	key        s3blob.Key // empty: none
	own        bool       // the server gives none
	none       bool       // the store takes none
	generation int64
	kept       bool
	ends
}

// ends is when what is held is to be renewed, from when on it is worth a warning that it isn't,
// and when it can't be used any more; zero: never.
type ends struct{ due, late, expires time.Time }

func endsOf(ttl time.Duration, now time.Time) ends {
	if ttl <= 0 {
		return ends{}
	}
	jitter := time.Duration(rand.Float64() * float64(ttl) / 20) // many workers join at a time
	return ends{due: now.Add(ttl*2/3 - jitter), late: now.Add(ttl * 3 / 4), expires: now.Add(ttl)}
}

// New returns a Holder, with what was kept of the daemon before.
func New(cfg Config) *Holder {
	h := &Holder{cfg: cfg, got: make(chan struct{}), since: time.Now()}
	if !cfg.OnlyOwn {
		h.recall()
	}
	return h
}

// Run asks the server until ctx ends.
func (h *Holder) Run(ctx context.Context) error {
	if h.cfg.OnlyOwn {
		return nil
	}
	wait := backoff.New(retry, retryMax)
	for ctx.Err() == nil {
		have, actx, end := h.begin(ctx)
		answer, err := h.cfg.Ask(actx, have)
		cut := actx.Err() != nil
		end()
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			wait.Reset()
			h.answered(ctx, answer, have)
		case cut: // it is to be asked something else
		case errs.Is(err, errs.NotFound) && !h.cfg.OnlyServers: // a server of an earlier release
			h.answered(ctx, fleet.StoreCredentials{Own: true}, have)
			h.pause(ctx, ownAgain)
		default:
			h.failed(ctx, err)
			h.pause(ctx, wait.Next())
		}
	}
	return nil
}

// begin returns which generation the next question is about, 0 if what is held won't do, and a
// context that ends when it is to be renewed.
func (h *Holder) begin(ctx context.Context) (have int64, actx context.Context,
	end context.CancelFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var cancel context.CancelFunc
	due := h.held.due
	switch {
	case h.anew, !due.IsZero() && !time.Now().Before(due), h.held.kept:
		actx, cancel = context.WithCancel(ctx)
	case !due.IsZero():
		have = h.held.generation
		actx, cancel = context.WithDeadline(ctx, due)
	default:
		have = h.held.generation
		actx, cancel = context.WithCancel(ctx)
	}
	h.anew = false
	h.cut = cancel
	return have, actx, cancel
}

// answered takes an answer of the server.
func (h *Holder) answered(ctx context.Context, a fleet.StoreCredentials, have int64) {
	h.mu.Lock()
	h.failing = nil
	h.waiting = h.anew // it may have been asked while this answer came
	before := h.held
	if !a.Unchanged || a.Generation != have {
		now := time.Now()
		h.held = held{own: a.Own, none: a.None, generation: a.Generation,
			ends: endsOf(a.TTL, now)}
		if !a.Own && !a.None {
			h.held.key = s3blob.Key{AccessKey: a.AccessKey, SecretKey: a.SecretKey,
				SessionToken: a.SessionToken, Expires: h.held.expires}
		}
		h.since = now
	}
	held := h.held
	close(h.got)
	h.got = make(chan struct{})
	h.mu.Unlock()
	h.keep(ctx, held)
	if !held.none && (held.generation != before.generation || held.own != before.own ||
		!held.key.Same(before.key) || before.kept) {
		h.cfg.Log.InfoContext(ctx, "the server has given credentials of the store", "generation",
			held.generation, "key_id", held.key.AccessKey, "expires", held.expires,
			"use_own", held.own)
	}
}

// failed notes that the server didn't answer. One that is shut out keeps nothing over a restart.
func (h *Holder) failed(ctx context.Context, err error) {
	h.mu.Lock()
	was := h.failing != nil
	h.failing, h.waiting = err, h.anew
	close(h.got) // nobody need wait longer
	h.got = make(chan struct{})
	h.mu.Unlock()
	if errs.Is(err, errs.Denied) {
		h.forget(ctx)
	}
	if !was {
		h.cfg.Log.WarnContext(ctx, "the server gives no credentials of the store; the former ones "+
			"are used", "error", err, "remedy", errs.RemedyOf(err))
	}
}

// pause waits, but no longer than until somebody wants other credentials.
func (h *Holder) pause(ctx context.Context, d time.Duration) {
	pctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h.mu.Lock()
	h.cut = cancel
	anew := h.anew
	h.mu.Unlock()
	if !anew {
		_ = backoff.Sleep(pctx, d) // the loop looks at ctx next
	}
}

// Key implements s3blob.Keys. Before the server has given any it waits, shortly.
func (h *Holder) Key(ctx context.Context) (s3blob.Key, error) {
	if h.cfg.OnlyOwn {
		return h.cfg.Own.Key(ctx)
	}
	deadline := time.NewTimer(firstWait)
	defer deadline.Stop()
	for {
		h.mu.Lock()
		held, got, failing := h.held, h.got, h.failing
		h.mu.Unlock()
		switch {
		case held.own && h.cfg.OnlyServers:
			return s3blob.Key{}, errs.New(errs.Denied,
				"the server gives workers no credentials of the store").
				WithRemedy("give this host its own, and start the worker without --store-credentials server")
		case held.own:
			return h.cfg.Own.Key(ctx)
		case held.key.AccessKey != "":
			return held.key, nil
		case failing != nil:
			return s3blob.Key{}, errs.Wrap(errs.Unavailable, failing,
				"the worker waits for credentials of the store, which only the server has").
				WithRemedy("bring the server back")
		}
		select {
		case <-ctx.Done():
			return s3blob.Key{}, errs.Wrap(errs.Unavailable, ctx.Err(),
				"wait for credentials of the store")
		case <-deadline.C:
			return s3blob.Key{}, errs.New(errs.Unavailable,
				"the server has not given this worker credentials of the store yet").
				WithRemedy("check that the server can be reached")
		case <-got:
		}
	}
}

// Others implements s3blob.Keys: it has the server asked at once. Who asks while that is going on
// waits for the same answer.
func (h *Holder) Others(ctx context.Context, used s3blob.Key) bool {
	h.mu.Lock()
	own := h.cfg.OnlyOwn || h.held.own
	switch {
	case own:
		h.mu.Unlock()
		return h.cfg.Own.Others(ctx, used)
	case !h.held.key.Same(used):
		h.mu.Unlock()
		return true
	}
	if !h.waiting && time.Since(h.asked) < askAgain {
		h.mu.Unlock()
		return false
	}
	if !h.waiting {
		h.asked, h.anew, h.waiting = time.Now(), true, true
		if h.cut != nil {
			h.cut()
		}
	}
	got := h.got
	h.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, firstWait)
	defer cancel()
	select {
	case <-ctx.Done():
	case <-got:
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.held.key.AccessKey != "" && !h.held.key.Same(used)
}

// Remedy implements s3blob.Keys.
func (h *Holder) Remedy(expired bool) string {
	if h.cfg.OnlyOwn {
		return h.cfg.Own.Remedy(expired)
	}
	return "the server gives workers their credentials of the store: see sluice store credentials"
}

// Report returns which credentials are used; nil where the store takes none.
func (h *Holder) Report() *fleet.StoreKeyReport {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held.none {
		return nil
	}
	if h.cfg.OnlyOwn || h.held.own {
		return &fleet.StoreKeyReport{Source: fleet.StoreKeyOwn, Generation: h.held.generation}
	}
	return &fleet.StoreKeyReport{Source: fleet.StoreKeyOfServer, Generation: h.held.generation,
		KeyID: h.held.key.AccessKey, Expires: h.held.expires, Kept: h.held.kept}
}

// Trouble returns why the credentials won't do for long, and since when; nil: they will.
func (h *Holder) Trouble() (since time.Time, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	why := h.failing
	if why == nil {
		why = errs.New(errs.Unavailable, "no answer of the server yet")
	}
	switch {
	case h.cfg.OnlyOwn, h.held.own, h.held.none:
		return since, nil
	case h.held.key.AccessKey == "" && now.Sub(h.since) > firstWait:
		return h.since, errs.Wrap(errs.KindOf(why), why,
			"the worker has no credentials of the store")
	case !h.held.expires.IsZero() && now.After(h.held.expires):
		return h.held.late, errs.Wrap(errs.KindOf(why), why,
			"the credentials of the store have expired at %s",
			h.held.expires.UTC().Format(time.RFC3339))
	case !h.held.late.IsZero() && now.After(h.held.late):
		return h.held.late, errs.Wrap(errs.KindOf(why), why,
			"the credentials of the store expire at %s and can't be renewed",
			h.held.expires.UTC().Format(time.RFC3339))
	}
	return since, nil
}
