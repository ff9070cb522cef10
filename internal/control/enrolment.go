package control

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Authority makes certificates and the text of join tokens. Safe for concurrent use.
type Authority interface {
	// NewToken returns a new token: its id, the hash of its secret, and its text.
	NewToken() (id, hash, text string)
	// ReadToken returns the id and the hash of a token's text. Invalid: it is none.
	ReadToken(text string) (id, hash string, err error)
	// CheckRequest returns what identifies the key of a request for a certificate.
	CheckRequest(request string) (key string, err error)
	Issue(worker fleet.WorkerID, term int64, request string) (fleet.EnrollAnswer, error)
	// State says who is trusted now, and who signs.
	State() fleet.AuthorityState
	// Rotate takes a step of a rotation.
	Rotate(step string) error
}

// Bounds of join tokens.
const (
	MaxJoinTTL    = 7 * 24 * time.Hour
	minJoinTTL    = time.Minute
	maxJoinTokens = 1000           // at a time
	rememberToken = 24 * time.Hour // after it has expired
)

var _ fleet.Enrolment = (*Control)(nil)

// CreateJoinToken implements fleet.Enrolment.
func (c *Control) CreateJoinToken(ctx context.Context, worker fleet.WorkerID,
	ttl time.Duration) (fleet.JoinToken, string, error) {
	if err := c.enrols(); err != nil {
		return fleet.JoinToken{}, "", err
	}
	if err := fleet.CheckName("worker", string(worker)); err != nil {
		return fleet.JoinToken{}, "", err
	}
	if ttl < minJoinTTL || ttl > MaxJoinTTL {
		return fleet.JoinToken{}, "", errs.New(errs.Invalid, "a join token that lives for %s",
			ttl).WithRemedy("ask for %s to %s", minJoinTTL, MaxJoinTTL)
	}
	id, hash, text := c.deps.Authority.NewToken()
	now := c.now()
	token := fleet.JoinToken{ID: id, Worker: worker, Hash: hash, CreatedAt: now,
		ExpiresAt: now.Add(ttl)}
	err := c.try(ctx, func() error {
		t := c.records.Begin()
		kept := 0
		for _, old := range c.records.JoinTokens.All() {
			if now.Sub(old.Val.ExpiresAt) > rememberToken {
				records.Delete(t, old)
			} else {
				kept++
			}
		}
		if kept >= maxJoinTokens {
			return errs.New(errs.Exhausted, "there are %d join tokens", kept).
				WithRemedy("revoke some: sluice worker token list, sluice worker token revoke ID")
		}
		records.Set(t, c.records.JoinTokens.New(id), token)
		return t.Commit(ctx)
	})
	if err != nil {
		return fleet.JoinToken{}, "", err
	}
	c.log.InfoContext(ctx, "join token made", "token_id", id, "worker_id", worker)
	return token, text, nil
}

// enrols says that certificates can be made now.
func (c *Control) enrols() error {
	if c.deps.Authority == nil {
		return errs.New(errs.Unsupported, "this server has no authority to make certificates")
	}
	return c.ready()
}

// JoinTokens implements fleet.Enrolment.
func (c *Control) JoinTokens(context.Context) ([]fleet.JoinToken, error) {
	if err := c.ready(); err != nil {
		return nil, err
	}
	var tokens []fleet.JoinToken
	for _, t := range c.records.JoinTokens.All() {
		if c.now().Sub(t.Val.ExpiresAt) <= rememberToken {
			tokens = append(tokens, t.Val)
		}
	}
	slices.SortFunc(tokens, func(a, b fleet.JoinToken) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return tokens, nil
}

// DeleteJoinToken implements fleet.Enrolment.
func (c *Control) DeleteJoinToken(ctx context.Context, id string) error {
	if err := c.ready(); err != nil {
		return err
	}
	return c.try(ctx, func() error {
		row, ok := c.records.JoinTokens.Get(id)
		if !ok {
			return errs.New(errs.NotFound, "there is no join token %q", id).
				WithRemedy("see: sluice worker token list")
		}
		t := c.records.Begin()
		records.Delete(t, row)
		return t.Commit(ctx)
	})
}

// Enroll implements fleet.Enrolment.
func (c *Control) Enroll(ctx context.Context, req fleet.EnrollRequest) (fleet.EnrollAnswer,
	error) {
	if err := c.enrols(); err != nil {
		return fleet.EnrollAnswer{}, err
	}
	id, hash, err := c.deps.Authority.ReadToken(req.Token)
	if err != nil {
		return fleet.EnrollAnswer{}, err
	}
	// Who has no token gets no more work out of the server than this.
	if _, err := c.openToken(id, hash, req.Worker); err != nil {
		return fleet.EnrollAnswer{}, err
	}
	key, err := c.deps.Authority.CheckRequest(req.Request)
	if err != nil {
		return fleet.EnrollAnswer{}, err
	}
	var term int64
	err = c.try(ctx, func() error {
		row, err := c.openToken(id, hash, req.Worker)
		if err == nil {
			term, err = c.spend(ctx, row, key)
		}
		return err
	})
	if err != nil {
		return fleet.EnrollAnswer{}, err
	}
	return c.deps.Authority.Issue(req.Worker, term, req.Request)
}

func newToken(worker fleet.WorkerID) string {
	return "make a new one: sluice worker token create --name " + string(worker)
}

// openToken returns the token of an id, if it lets a worker in.
func (c *Control) openToken(id, hash string,
	worker fleet.WorkerID) (records.Row[fleet.JoinToken], error) {
	row, ok := c.records.JoinTokens.Get(id)
	token, newOne := row.Val, newToken(worker)
	switch {
	case !ok || token.Hash != hash:
		return row, errs.New(errs.Denied, "the fleet knows no such join token").
			WithRemedy("%s", newOne)
	case token.Worker != worker:
		return row, errs.New(errs.Denied, "the join token is for worker %s, and not for %s",
			token.Worker, worker).WithRemedy("use --name %s, or %s", token.Worker, newOne)
	case !c.now().Before(token.ExpiresAt):
		return row, errs.New(errs.Denied, "the join token expired at %s",
			token.ExpiresAt.UTC().Format(time.RFC3339)).WithRemedy("%s", newOne)
	}
	return row, nil
}

// spend uses a token, and returns the term that it opens. A repetition returns the same.
func (c *Control) spend(ctx context.Context, row records.Row[fleet.JoinToken],
	key string) (int64, error) {
	token, now := row.Val, c.now()
	worker := token.Worker
	switch {
	case !token.UsedAt.IsZero() && token.Key != key:
		return 0, errs.New(errs.Denied, "the join token was used at %s, with another key",
			token.UsedAt.UTC().Format(time.RFC3339)).
			WithRemedy("%s; and if that was not you: sluice worker revoke %s", newToken(worker),
				worker)
	case !token.UsedAt.IsZero():
		return token.Term, c.CheckWorker(worker, token.Term)
	}
	who, known := c.records.Identities.Get(worker)
	if known && !who.Val.IsRevoked() {
		if _, joined := c.records.Workers.Get(worker); joined && c.obs.speaks(worker, now) {
			return 0, errs.New(errs.Conflict,
				"a worker %s is alive, and has a certificate; another can't have its name", worker).
				WithRemedy("give it another name; or revoke the first: sluice worker revoke %s",
					worker)
		}
	}
	next := fleet.WorkerIdentity{Worker: worker, Revoked: who.Val.Revoked,
		RevokedAt: who.Val.RevokedAt, Reason: who.Val.Reason,
		Term: max(now.UnixMilli(), who.Val.Term+1, who.Val.Revoked+1)}
	token.UsedAt, token.Key, token.Term = now, key, next.Term
	t := c.records.Begin()
	records.Set(t, row, token)
	records.Set(t, who, next)
	if err := t.Commit(ctx); err != nil {
		return 0, err
	}
	c.log.InfoContext(ctx, "a worker has got a certificate", "worker_id", worker, "token_id",
		token.ID)
	return next.Term, nil
}

// Renew implements fleet.Enrolment.
func (c *Control) Renew(_ context.Context, worker fleet.WorkerID, term int64,
	request string) (fleet.EnrollAnswer, error) {
	if err := c.enrols(); err != nil {
		return fleet.EnrollAnswer{}, err
	}
	if err := c.CheckWorker(worker, term); err != nil {
		return fleet.EnrollAnswer{}, err
	}
	if _, err := c.deps.Authority.CheckRequest(request); err != nil {
		return fleet.EnrollAnswer{}, err
	}
	return c.deps.Authority.Issue(worker, term, request)
}

// RevokeWorker implements fleet.Enrolment. It may be repeated: certificates since are refused, too.
func (c *Control) RevokeWorker(ctx context.Context, worker fleet.WorkerID,
	reason string) (fleet.WorkerIdentity, error) {
	if err := c.ready(); err != nil {
		return fleet.WorkerIdentity{}, err
	}
	var next fleet.WorkerIdentity
	err := c.try(ctx, func() error {
		row, known := c.records.Identities.Get(worker)
		if !known {
			if _, err := c.knownWorker(worker); err != nil {
				return err
			}
		}
		// The state may have been set back: there may be later terms than it knows.
		next = fleet.WorkerIdentity{Worker: worker, Term: row.Val.Term, RevokedAt: c.now(),
			Reason: reason, Revoked: max(row.Val.Term, row.Val.Revoked, c.now().UnixMilli())}
		t := c.records.Begin()
		records.Set(t, row, next)
		for _, token := range c.records.JoinTokens.All() {
			if token.Val.Worker == worker {
				records.Delete(t, token)
			}
		}
		return t.Commit(ctx)
	})
	if err == nil {
		c.log.WarnContext(ctx, "worker revoked", "worker_id", worker, "reason", reason)
	}
	return next, err
}

// CheckWorker implements fleet.Enrolment. The authority's signature is what admits; the state says
// what is refused.
func (c *Control) CheckWorker(worker fleet.WorkerID, term int64) error {
	if err := c.ready(); err != nil {
		return err
	}
	row, _ := c.records.Identities.Get(worker)
	rejoin := "to let it in again: sluice worker token create --name " + string(worker) +
		", and give the token to the worker with --join-token-file"
	switch who := row.Val; {
	case term <= who.Revoked:
		return errs.New(errs.Denied, "the certificate of worker %s was revoked at %s", worker,
			who.RevokedAt.UTC().Format(time.RFC3339)).WithRemedy("%s", rejoin)
	case term < who.Term:
		return errs.New(errs.Denied,
			"worker %s has joined again since, and this certificate is of before", worker).
			WithRemedy("%s", rejoin)
	}
	return nil
}

// refusals are whom to tell of certificates that are refused from now on. Safe for concurrent use.
type refusals struct {
	mu   sync.Mutex
	next int64
	of   map[fleet.WorkerID]map[int64]refusal
}

type refusal struct {
	term int64
	do   func()
}

// OnRefused implements fleet.Enrolment.
func (c *Control) OnRefused(worker fleet.WorkerID, term int64, do func()) (remove func()) {
	r := &c.refusals
	r.mu.Lock()
	r.next++
	n := r.next
	if r.of[worker] == nil {
		r.of[worker] = map[int64]refusal{}
	}
	r.of[worker][n] = refusal{term, do}
	r.mu.Unlock()
	if errs.Is(c.CheckWorker(worker, term), errs.Denied) {
		do() // it has happened just before
	}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.of[worker], n)
		if len(r.of[worker]) == 0 {
			delete(r.of, worker)
		}
	}
}

// tellRefused calls those whose certificate of a worker is refused now.
func (c *Control) tellRefused(worker fleet.WorkerID) {
	r := &c.refusals
	r.mu.Lock()
	waiting := make([]refusal, 0, len(r.of[worker]))
	for _, w := range r.of[worker] {
		waiting = append(waiting, w)
	}
	r.mu.Unlock()
	for _, w := range waiting {
		if errs.Is(c.CheckWorker(worker, w.term), errs.Denied) {
			w.do()
		}
	}
}
