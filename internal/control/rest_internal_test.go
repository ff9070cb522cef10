package control

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/plan"
	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/state/memstate"
)

// countedStore counts the calls that an etcd would have to answer.
type countedStore struct {
	state.Store
	calls atomic.Int64
}

func (s *countedStore) Get(ctx context.Context, key string) (state.KV, error) {
	s.calls.Add(1)
	return s.Store.Get(ctx, key)
}

func (s *countedStore) List(ctx context.Context, prefix string) ([]state.KV, int64, error) {
	s.calls.Add(1)
	return s.Store.List(ctx, prefix)
}

func (s *countedStore) Commit(ctx context.Context, txn state.Txn) (int64, error) {
	s.calls.Add(1)
	return s.Store.Commit(ctx, txn)
}

// restful is a control plane whose workers do nothing but report, in the fake time of a synctest
// bubble.
type restful struct {
	*Control
	store *countedStore
	looks atomic.Int64 // at the clock: by each tick, and by each record that is reconciled
	seq   int64
}

func newRestful(t *testing.T) *restful {
	r := &restful{store: &countedStore{Store: memstate.New(memstate.Config{})}}
	c, err := New(Config{Policy: fleet.DefaultPolicy()},
		Deps{Store: r.store, Disks: noDisks{}, Images: noDisks{},
			Log: slog.New(slog.DiscardHandler),
			Now: func() time.Time { r.looks.Add(1); return time.Now() }})
	if err != nil {
		t.Fatal(err)
	}
	r.Control = c
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		_ = r.store.Close()
	})
	synctest.Wait()
	for i := range 3 {
		req := fleet.JoinRequest{Worker: fleet.WorkerID(fmt.Sprintf("w%d", i+1)),
			Address:  netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}),
			APIURL:   fmt.Sprintf("https://10.0.0.%d", i+1),
			Capacity: fleet.Resources{CPUMillis: 1000, MemoryMiB: 1000}}
		if _, err := c.Join(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// report has workers say once a second, for some seconds, that they live.
func (r *restful) report(t *testing.T, seconds int, workers ...fleet.WorkerID) {
	t.Helper()
	for range seconds {
		for _, w := range workers {
			r.seq++
			if err := r.Report(t.Context(),
				fleet.WorkerReport{Worker: w, Boot: "b", Sequence: r.seq}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
	}
}

// TestIdleFleetRests: a minute of a fleet in which nothing happens asks nothing of the state, and
// wakes for little more than the reports that come.
func TestIdleFleetRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRestful(t)
		r.report(t, 3, "w1", "w2", "w3")
		calls, looks := r.store.calls.Load(), r.looks.Load()
		r.report(t, 60, "w1", "w2", "w3")
		if n := r.store.calls.Load() - calls; n != 0 {
			t.Errorf("an idle minute made %d calls of the state", n)
		}
		if n := r.looks.Load() - looks; n > 3*60+300 {
			t.Errorf("an idle minute looked at the clock %d times, 180 of them for reports", n)
		}
	})
}

// TestRestDelaysNoFailure: a worker that falls silent while the control plane rests is suspect, and
// down, no later than a tick after its time.
func TestRestDelaysNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRestful(t)
		for silent := range 3 { // at other moments of the rest
			r.report(t, 30, "w1", "w2", "w3")
			time.Sleep(time.Duration(silent) * 310 * time.Millisecond)
			r.report(t, 1, "w1", "w2", "w3")
			last := time.Now().Add(-time.Second)
			for _, x := range []struct {
				health plan.Health
				after  time.Duration
			}{{plan.Suspect, r.cfg.Policy.WorkerSuspect}, {plan.Down, r.cfg.Policy.WorkerDown}} {
				for r.judgement("w3") != x.health {
					time.Sleep(10 * time.Millisecond)
					if time.Since(last)%time.Second == 0 {
						r.seq++
						for _, w := range []fleet.WorkerID{"w1", "w2"} {
							if err := r.Report(t.Context(),
								fleet.WorkerReport{Worker: w, Boot: "b",
									Sequence: r.seq}); err != nil {
								t.Fatal(err)
							}
						}
					}
					if time.Since(last) > x.after+time.Minute {
						t.Fatalf("never found %s", x.health)
					}
				}
				if late := time.Since(last) - x.after; late < 0 ||
					late > r.cfg.Tick+20*time.Millisecond {
					t.Errorf("found %s %s after its time", x.health, late)
				}
			}
		}
	})
}

func (c *Control) judgement(id fleet.WorkerID) plan.Health {
	c.obs.mu.Lock()
	defer c.obs.mu.Unlock()
	return c.obs.getLocked(id).judged
}
