package sim

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// faultyStore is one server's way to the state: where servers die, and answers get lost.
type faultyStore struct {
	state.Store
	w *world
	s *server

	moment time.Time // and how many commits were tried in it
	tried  int
}

// mostCommits is how many commits a server may try in one moment. A control plane that never comes
// to rest would hold the clock for ever.
const mostCommits = 10_000

func (f *faultyStore) restless() bool {
	if !f.moment.Equal(f.w.now) {
		f.moment, f.tried = f.w.now, 0
	}
	f.tried++
	return f.tried > mostCommits
}

// Commit implements state.Store, with the faults of the run and its invariants.
func (f *faultyStore) Commit(ctx context.Context, txn state.Txn) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, errs.Wrap(errs.Unavailable, err, "commit")
	}
	w := f.w
	if f.restless() {
		w.violated("%s has tried %d commits in one moment, and comes to no rest",
			f.s.name, mostCommits)
		f.s.die()
		return 0, errs.New(errs.Unavailable, "the server has died")
	}
	switch {
	case w.chance(8):
		w.logf("%s dies before it commits", f.s.name)
		f.s.die()
		return 0, errs.New(errs.Unavailable, "the server has died")
	case w.chance(10):
		w.logf("%s: commit lost on its way", f.s.name)
		return 0, errs.New(errs.Unavailable, "the request was lost")
	case w.opt.Break == BugLoseWrite && w.chance(3):
		return 1 << 40, nil
	}
	rev, err := f.Store.Commit(ctx, f.sabotage(txn))
	if err != nil {
		return rev, err
	}
	w.commits++
	w.foreign = w.foreign || f.s != w.server()
	w.shadow.apply(f.s, txn)
	switch {
	case w.chance(8):
		w.logf("%s dies after it has committed", f.s.name)
		f.s.die()
		return 0, errs.New(errs.Unavailable, "the server has died")
	case w.chance(10):
		w.logf("%s: answer to a commit lost", f.s.name)
		return 0, errs.New(errs.Unavailable, "the answer was lost")
	}
	return rev, nil
}

// sabotage drops the conditions that a built-in bug forgets.
func (f *faultyStore) sabotage(txn state.Txn) state.Txn {
	if f.w.opt.Break == BugNoCompare {
		txn.If = nil
	}
	return txn
}
