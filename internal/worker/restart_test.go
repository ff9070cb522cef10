package worker_test

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/fleet"
)

// TestWorkerRestartedAtAnyMoment takes a machine through its whole life again and again, while the
// worker is ended and started at random moments, with assignments that come twice and old ones in
// between.
func TestWorkerRestartedAtAnyMoment(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SLUICE_TEST_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("SLUICE_TEST_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	rounds := 12
	if os.Getenv("SLUICE_TEST_SOAK") != "" {
		rounds = 400
	}
	r := newRig(t, 1)
	r.newDisk(m1)
	r.start()
	for round := range rounds {
		g := fleet.Generation(round + 1)
		prepare := rng.IntN(2) == 0
		if prepare {
			r.feed.assign(assignment(m1, g, fleet.WantPrepared))
			r.shake(rng, 2)
			r.awaitPhase(m1, g, fleet.PhasePrepared)
		}
		r.feed.assign(assignment(m1, g, fleet.WantRunning))
		r.shake(rng, 3)
		v := r.awaitPhase(m1, g, fleet.PhaseHealthy)
		if n := len(r.host.bound()); n != 1 {
			t.Fatalf("generation %d: %d VMs were told to be the machine", g, n)
		}
		if h := r.head(m1); h.Generation != uint64(g) || h.Epoch != uint64(g) ||
			h.Holder != string(v.VM) {
			t.Fatalf("generation %d: attached more than once, or by another: %+v", g, h)
		}
		r.write(byte(round%100 + 1))
		if rng.IntN(3) == 0 && g > 1 {
			r.feed.assign(assignment(m1, g-1, fleet.WantDiscarded)) // very late
			r.shake(rng, 1)
		}
		r.feed.assign(assignment(m1, g, fleet.WantReleased))
		r.shake(rng, 3)
		if v := r.awaitPhase(m1, g, fleet.PhaseReleased); v.Error != "" {
			t.Fatalf("generation %d: released with %q", g, v.Error)
		}
		if h := r.head(m1); h.State != format.StateClosed || h.Epoch != uint64(g) {
			t.Fatalf("generation %d: released, and the head is %+v", g, h)
		}
		r.awaitGone(m1)
		if rng.IntN(2) == 0 {
			r.feed.assign()
			r.shake(rng, 1)
			r.eventually("forgotten", func() bool { return r.feed.vm(m1) == nil })
		}
	}
	r.eventually("only the pool is left", func() bool {
		return len(r.host.all()) == 1 &&
			r.feed.last().PoolReady == 1
	})
}

// shake restarts the worker up to n times, each after up to 8 ms.
func (r *rig) shake(rng *rand.Rand, n int) {
	for range rng.IntN(n + 1) {
		time.Sleep(time.Duration(rng.IntN(8000)) * time.Microsecond)
		r.restart()
	}
}

func TestPoolVMsAreUsedAgainAndUnknownOnesRemoved(t *testing.T) {
	r := newRig(t, 2)
	r.start()
	r.eventually("the pool is full", func() bool { return r.feed.last().PoolReady == 2 })
	r.stop()
	other := newRig(t, 1)
	other.host = r.host // its own memory knows nothing of the two VMs
	other.start()
	other.eventually("a VM of its own", func() bool {
		return other.feed.last().PoolReady == 1 && len(r.host.all()) == 1 && r.host.boots() == 3
	})
	other.restart()
	other.eventually("found again", func() bool { return other.feed.last().PoolReady == 1 })
	other.cfg.Release = "r2"
	other.restart()
	other.eventually("replaced by one of the new release", func() bool {
		return other.feed.last().Release == "r2" && other.feed.last().PoolReady == 1 &&
			len(r.host.all()) == 1 && r.host.boots() == 4
	})
}
