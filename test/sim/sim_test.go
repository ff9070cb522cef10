package sim_test

import (
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/test/sim"
)

// seeds is how many runs a plain test plays; SLUICE_SIM_SEEDS asks for more, SLUICE_SIM_SEED for
// one.
const seeds = 300

func options(seed uint64) sim.Options {
	return sim.Options{Seed: seed, Calm: seed%3 == 0, Faults: 20 * time.Second,
		Settle: 15 * time.Minute}
}

func TestFleetSurvives(t *testing.T) {
	first, n := uint64(1), seeds
	if s := os.Getenv("SLUICE_SIM_SEEDS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	if s := os.Getenv("SLUICE_SIM_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, n = seed, 1
	}
	var mu sync.Mutex
	var sum sim.Tally
	t.Run("seeds", func(t *testing.T) {
		const lanes = 2
		for lane := range lanes {
			t.Run(strconv.Itoa(lane), func(t *testing.T) {
				t.Parallel()
				for i := lane; i < n; i += lanes {
					got, err := sim.Run(options(first + uint64(i)))
					if err != nil {
						t.Errorf("run it again with SLUICE_SIM_SEED=%d: %v", first+uint64(i), err)
						return
					}
					mu.Lock()
					add(&sum, got)
					mu.Unlock()
				}
			})
		}
	})
	t.Logf("%d runs: %+v", n, sum)
	if n >= seeds && (sum.Moves == 0 || sum.Undone == 0 || sum.Failovers == 0 || sum.Drained == 0 ||
		sum.Cancelled == 0 || sum.Servers <= n || sum.Writes == 0) {
		t.Errorf("something never happened in %d runs: %+v", n, sum)
	}
}

func add(sum *sim.Tally, t sim.Tally) {
	sum.Commits += t.Commits
	sum.Moves += t.Moves
	sum.Undone += t.Undone
	sum.Failovers += t.Failovers
	sum.Drained += t.Drained
	sum.Cancelled += t.Cancelled
	sum.Blocked += t.Blocked
	sum.Servers += t.Servers
	sum.Writes += t.Writes
}

// TestBugsAreFound builds bugs in, and expects the runs to find each of them.
func TestBugsAreFound(t *testing.T) {
	for _, bug := range []sim.Bug{sim.BugNoLock, sim.BugNoCompare, sim.BugLoseWrite, sim.BugNoFence,
		sim.BugNoMarks} {
		t.Run(string(bug), func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= 150; seed++ {
				opt := options(seed)
				opt.Calm, opt.Break, opt.Faults, opt.Settle = false, bug,
					60*time.Second, 2*time.Minute
				if _, err := sim.Run(opt); err != nil {
					return
				}
			}
			t.Errorf("150 runs did not find the bug %s", bug)
		})
	}
}

func TestSameSeedSameRun(t *testing.T) {
	a, errA := sim.Run(options(7))
	b, errB := sim.Run(options(7))
	if a != b || (errA == nil) != (errB == nil) {
		t.Fatalf("seed 7 gave %+v (%v), then %+v (%v)", a, errA, b, errB)
	}
}
