package leader_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/state/etcdstate"
	"github.com/sluice-platform/sluice/internal/state/leader"
	"github.com/sluice-platform/sluice/internal/state/memstate"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const key = "control/leader"

func elector(t *testing.T, s state.Store, id string) *leader.Elector {
	t.Helper()
	e, err := leader.New(s, leader.Config{Key: key, ID: id, TTL: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func campaign(t *testing.T, e *leader.Elector) *leader.Term {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	term, err := e.Campaign(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return term
}

func resign(t *testing.T, term *leader.Term) {
	t.Helper()
	if err := term.Resign(context.Background()); err != nil {
		t.Error(err)
	}
}

func put(s state.Store, k string) error {
	_, err := s.Commit(context.Background(), state.Txn{Then: []state.Op{{Key: k}}})
	return err
}

// gate is a store whose lease renewals can be cut off, as by a partition that a stray write still crosses.
type gate struct {
	state.Store
	cut atomic.Bool
}

func (g *gate) KeepAlive(ctx context.Context, id state.LeaseID) error {
	if g.cut.Load() {
		return errs.New(errs.Unavailable, "cut off")
	}
	return g.Store.KeepAlive(ctx, id)
}

func TestOneLeadsAndResigningHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstate.New(memstate.Config{})
		first := campaign(t, elector(t, s, "a"))
		if h, err := leader.Current(t.Context(), s, key); err != nil || h.ID != "a" {
			t.Fatalf("leader %+v, %v", h, err)
		}
		var second *leader.Term
		var group errgroup.Group
		group.Go(func() (err error) { second, err = elector(t, s, "b").Campaign(t.Context()); return err })
		time.Sleep(time.Minute) // of synthetic time: many leases long, all of them renewed
		synctest.Wait()
		if second != nil || first.Cause() != nil {
			t.Fatalf("a second leader beside the first: %v", first.Cause())
		}
		resigned := time.Now()
		resign(t, first)
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(resigned); took > 500*time.Millisecond {
			t.Errorf("handing over took %s", took)
		}
		if second.Revision() <= first.Revision() {
			t.Errorf("fence %d after %d", second.Revision(), first.Revision())
		}
		resign(t, second)
		resign(t, second)
		if _, err := leader.Current(t.Context(), s, key); !errs.Is(err, errs.NotFound) {
			t.Errorf("after the last one resigned: %v", err)
		}
	})
}

func TestDeposedLeadersWritesFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstate.New(memstate.Config{})
		cut := &gate{Store: s}
		old := campaign(t, elector(t, cut, "a"))
		guard := old.Guard(cut)
		if err := put(guard, "work/1"); err != nil {
			t.Fatal(err)
		}
		if _, err := guard.Commit(t.Context(), state.Txn{If: []state.Cond{{Key: "work/1"}}}); !errs.Is(err, errs.Conflict) {
			t.Errorf("a plain conflict under a standing fence: %v", err)
		}
		late := state.Txn{If: []state.Cond{old.Fence()}, Then: []state.Op{{Key: "work/late"}}}
		cut.cut.Store(true)
		next := campaign(t, elector(t, s, "b")) // waits for the lease to end
		if _, err := s.Commit(t.Context(), late); !errs.Is(err, errs.Conflict) {
			t.Errorf("a write of the deposed leader that was long on its way: %v", err)
		}
		if err := put(guard, "work/2"); !errs.Is(err, errs.Fenced) {
			t.Errorf("a write of the deposed leader: %v", err)
		}
		<-old.Lost()
		if !errs.Is(old.Cause(), errs.Fenced) {
			t.Errorf("cause of the end: %v", old.Cause())
		}
		if err := put(next.Guard(s), "work/3"); err != nil {
			t.Error(err)
		}
		resign(t, old) // late, and must not hurt the next
		if err := put(next.Guard(s), "work/4"); err != nil {
			t.Error(err)
		}
		if kvs, _, err := s.List(t.Context(), "work/"); err != nil || len(kvs) != 3 {
			t.Errorf("written: %+v, %v", kvs, err)
		}
		resign(t, next)
	})
}

// TestSilentLeaderStepsDownInTime cuts a leader off from everything, also from the news that it is deposed.
func TestSilentLeaderStepsDownInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		s := memstate.New(memstate.Config{Now: func() time.Time { return now }}) // leases never end here
		cut := &gate{Store: s}
		term := campaign(t, elector(t, cut, "a"))
		cut.cut.Store(true)
		begin := time.Now()
		<-term.Lost()
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("stepped down after %s, with a lease of 2 s", took)
		}
		resign(t, term)
	})
}

func TestRestartedServerTakesItsOwnTermOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstate.New(memstate.Config{})
		former := campaign(t, elector(t, s, "a"))
		begin := time.Now()
		again := elector(t, s, "a")
		present := campaign(t, again)
		if took := time.Since(begin); took != 0 {
			t.Errorf("taking one's own term over took %s", took)
		}
		<-former.Lost()
		if err := put(former.Guard(s), "x"); !errs.Is(err, errs.Fenced) {
			t.Errorf("a write of the former life: %v", err)
		}
		resign(t, former)

		// Only a server's first campaign takes over; else two servers of one name would depose each other for ever.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := again.Campaign(ctx); !errors.Is(err, context.DeadlineExceeded) || present.Cause() != nil {
			t.Errorf("a second campaign beside one's own term: %v, cause %v", err, present.Cause())
		}
		resign(t, present)
	})
}

func TestLostAnswerOfTheWinningCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, fault := range []memstate.Fault{memstate.FaultLoseResponse, memstate.FaultLoseRequest} {
			faults := 3
			s := memstate.New(memstate.Config{OnCommit: func(state.Txn) memstate.Fault {
				if faults--; faults >= 0 {
					return fault
				}
				return memstate.FaultNone
			}})
			begin := time.Now()
			term := campaign(t, elector(t, s, "a"))
			if took := time.Since(begin); took > time.Second {
				t.Errorf("fault %d: won after %s", fault, took)
			}
			faults = 0
			if err := put(term.Guard(s), "x"); err != nil {
				t.Errorf("fault %d: the fence is wrong: %v", fault, err)
			}
			resign(t, term)
		}
	})
}

func TestRunLeadsAgainAfterALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstate.New(memstate.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		terms := 0
		err := elector(t, s, "a").Run(ctx, func(ctx context.Context, term *leader.Term) error {
			if terms++; terms == 3 {
				cancel()
			} else if _, err := s.Commit(ctx, state.Txn{Then: []state.Op{{Key: key, Delete: true}}}); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		})
		if err != nil || terms != 3 {
			t.Fatalf("%d terms, %v", terms, err)
		}
		if _, err := leader.Current(t.Context(), s, key); !errs.Is(err, errs.NotFound) {
			t.Errorf("the last term wasn't resigned: %v", err)
		}
		broken := errors.New("broken")
		err = elector(t, s, "a").Run(t.Context(), func(context.Context, *leader.Term) error { return broken })
		if !errors.Is(err, broken) {
			t.Errorf("lead's own error: %v", err)
		}
	})
}

// TestElectionOnEtcd has three servers hand the leadership around: never two at once, every fence newer.
func TestElectionOnEtcd(t *testing.T) {
	e, err := etcdstate.Start(t.Context(), etcdstate.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	s := e.Store()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var leading, terms atomic.Int32
	var lastFence atomic.Int64
	var group errgroup.Group
	for _, id := range []string{"a", "b", "c"} {
		elector := elector(t, s, id)
		group.Go(func() error {
			for terms.Load() < 12 {
				term, err := elector.Campaign(ctx)
				if err != nil {
					return err
				}
				if leading.Add(1) != 1 {
					t.Error("two servers lead, and both their leases are alive")
				}
				if fence := term.Revision(); lastFence.Swap(fence) >= fence {
					t.Errorf("fence %d isn't newer", fence)
				}
				if err := put(term.Guard(s), "work"); err != nil {
					t.Error(err)
				}
				terms.Add(1)
				leading.Add(-1)
				if err := term.Resign(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}
