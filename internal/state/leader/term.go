package leader

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Term is one leadership, from winning to losing or resigning it. It is safe for concurrent use. Every term
// must be resigned, a lost one too, so that what watches over it ends.
type Term struct {
	store state.Store
	fence state.Cond
	lease state.LeaseID
	ttl   time.Duration

	life  context.Context // ends when the term does; its cause says why
	end   context.CancelCauseFunc
	watch *errgroup.Group
}

// errResigned is the cause of a term's end where nothing went wrong.
var errResigned = errs.New(errs.Fenced, "the leader has resigned")

func newTerm(e *Elector, fence state.Cond, lease state.LeaseID, granted time.Time) *Term {
	t := &Term{store: e.store, fence: fence, lease: lease, ttl: e.cfg.TTL, watch: new(errgroup.Group)}
	t.life, t.end = context.WithCancelCause(context.Background())
	t.watch.Go(func() error { t.end(t.keepLease(granted)); return nil })
	t.watch.Go(func() error { t.end(t.watchKey()); return nil })
	return t
}

// Fence is the condition that holds for as long as nobody else has led since.
func (t *Term) Fence() state.Cond { return t.fence }

// Revision is the fencing revision: it grows from term to term.
func (t *Term) Revision() int64 { return t.fence.ModRevision }

// Lost is closed when the term has ended: deposed, silent for longer than its lease, or resigned.
func (t *Term) Lost() <-chan struct{} { return t.life.Done() }

// Cause says why the term has ended; nil before that.
func (t *Term) Cause() error { return context.Cause(t.life) }

func (t *Term) ended() bool { return t.life.Err() != nil }

// Resign ends the term, if it hasn't ended yet, and lets go of the key at once. Resigning twice does nothing.
// After an error the key goes when the lease ends.
func (t *Term) Resign(ctx context.Context) error {
	t.end(errResigned)
	_ = t.watch.Wait() // its goroutines return nil; their errors are the term's cause
	return t.store.Revoke(ctx, t.lease)
}

func (t *Term) resignBounded(ctx context.Context) {
	t.end(errResigned)
	_ = t.watch.Wait()
	revokeBounded(ctx, t.store, t.lease)
}

// keepLease renews the lease until that fails for good, or for a whole ttl after the last renewal was sent.
func (t *Term) keepLease(granted time.Time) error {
	deadline := granted.Add(t.ttl)
	ticker := time.NewTicker(t.ttl / 4)
	defer ticker.Stop()
	for {
		select {
		case <-t.life.Done():
			return t.Cause()
		case <-ticker.C:
		}
		sent := time.Now()
		// One renewal that hangs must leave time for another.
		ctx, cancel := context.WithTimeout(t.life, min(t.ttl/3, deadline.Sub(sent)))
		err := t.store.KeepAlive(ctx, t.lease)
		cancel()
		switch {
		case err == nil:
			deadline = sent.Add(t.ttl)
		case errs.Is(err, errs.NotFound):
			return errs.Wrap(errs.Fenced, err, "the leader's lease has ended")
		case !time.Now().Before(deadline):
			return errs.Wrap(errs.Fenced, err, "the leader's lease couldn't be renewed for %s", t.ttl)
		}
	}
}

// watchKey notices at once what the fence would notice at the next commit.
func (t *Term) watchKey() error {
	rev := t.fence.ModRevision
	for {
		deposed := false
		err := t.store.Watch(t.life, t.fence.Key, rev, func(b state.Batch) bool {
			rev = b.Revision
			for _, ev := range b.Events {
				deposed = deposed || ev.Key == t.fence.Key
			}
			return !deposed
		})
		if t.ended() {
			return t.Cause()
		}
		if !deposed && errs.Is(err, errs.Conflict) { // compacted: ask once, and go on from the present
			deposed, rev = t.lookUp(rev)
		}
		if deposed {
			return errDeposed()
		}
		timer := time.NewTimer(retryPause)
		select {
		case <-t.life.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// lookUp tells whether the key has changed hands, and the revision as of which that is known.
func (t *Term) lookUp(rev int64) (deposed bool, at int64) {
	kvs, now, err := t.store.List(t.life, t.fence.Key)
	if err != nil {
		return false, rev
	}
	for _, kv := range kvs {
		if kv.Key == t.fence.Key && kv.ModRevision == t.fence.ModRevision {
			return false, now
		}
	}
	return true, now
}

func errDeposed() error { return errs.New(errs.Fenced, "another server leads, or none") }

// Guard returns a store whose commits carry the fence, so that they fail once the term is over: then with an
// error of kind Fenced, where another condition that doesn't hold is a Conflict as ever. Closing it does
// nothing. A guarded transaction has room for one condition less.
func (t *Term) Guard(store state.Store) state.Store { return guarded{Store: store, term: t} }

type guarded struct {
	state.Store
	term *Term
}

// Commit implements state.Store.
func (g guarded) Commit(ctx context.Context, txn state.Txn) (int64, error) {
	if g.term.ended() {
		return 0, errs.Wrap(errs.Fenced, g.term.Cause(), "commit as leader")
	}
	conds := make([]state.Cond, 0, len(txn.If)+1)
	txn.If = append(append(conds, txn.If...), g.term.fence)
	rev, err := g.Store.Commit(ctx, txn)
	if !errs.Is(err, errs.Conflict) {
		return rev, err
	}
	kv, getErr := g.Store.Get(ctx, g.term.fence.Key)
	switch {
	case errs.Is(getErr, errs.NotFound), getErr == nil && kv.ModRevision != g.term.fence.ModRevision:
		g.term.end(errDeposed())
		return 0, errs.Wrap(errs.Fenced, errors.Join(errDeposed(), err), "commit as leader")
	default: // the fence holds, or nobody can tell: it is the conflict that it says it is
		return rev, err
	}
}

// Close implements io.Closer. The store is not the guard's to close.
func (g guarded) Close() error { return nil }
