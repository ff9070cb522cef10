package simtest

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// result is what became of one run.
type result struct {
	err     error
	trace   []string
	counts  counts
	deleted int
	doubts  int64
}

// run plays one seed in virtual time.
func run(t *testing.T, seed uint64, b bug) (r result) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t.Context(), seed, b)
		n := steps
		if b != noBug { // rare things happen sooner in longer lives
			n = 4 * steps
		}
		for range n {
			if w.failed() != nil {
				break
			}
			w.step()
		}
		w.finish()
		r = result{w.failed(), w.trace, w.p.total(), w.coll.deleted,
			w.doubts.Load()}
	})
	return r
}

func envUint(t *testing.T, name string, n uint64) uint64 {
	t.Helper()
	if s := os.Getenv(name); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return n
}

// TestSimulation plays many seeds: SLUICE_DISK_SEEDS of them from SLUICE_DISK_SEED on. Without that
// it plays a few; scripts/test.sh asks for 10,000, without the race detector, under which a seed
// takes five times as long.
func TestSimulation(t *testing.T) {
	first, n := envUint(t, "SLUICE_DISK_SEED", 0), envUint(t, "SLUICE_DISK_SEEDS", 200)
	var next, requests, faultCount, lies, deleted, doubts atomic.Uint64
	start := time.Now()
	t.Run("seeds", func(t *testing.T) {
		for i := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint("worker", i), func(t *testing.T) {
				t.Parallel()
				for s := next.Add(1) - 1; s < n && !t.Failed(); s = next.Add(1) - 1 {
					r := run(t, first+s, noBug)
					if r.err != nil {
						t.Errorf(
							"seed %d: %v\n  %s\nagain: SLUICE_DISK_SEED=%d SLUICE_DISK_SEEDS=1",
							first+s, r.err,
							strings.Join(r.trace, "\n  "), first+s)
					}
					requests.Add(uint64(r.counts.requests))
					faultCount.Add(uint64(r.counts.faults))
					lies.Add(uint64(r.counts.lies))
					deleted.Add(uint64(r.deleted))
					doubts.Add(uint64(r.doubts))
				}
			})
		}
	})
	if t.Failed() {
		return
	}
	if n >= 200 && (faultCount.Load() == 0 || lies.Load() == 0 || deleted.Load() == 0 ||
		doubts.Load() == 0) {
		t.Errorf("the runs prove little: %d faults, %d lies, %d objects collected, %d doubts",
			faultCount.Load(), lies.Load(), deleted.Load(), doubts.Load())
	}
	t.Logf(
		"RESULT disk simulation: %d seeds, %d steps, %d requests, %d faults, %d lies, %d objects collected, %d doubts about junk, 0 violations, %.0f seeds/s",
		n, n*steps, requests.Load(), faultCount.Load(), lies.Load(), deleted.Load(),
		doubts.Load(), float64(n)/time.Since(start).Seconds())
}

// TestSeededBugsAreFound breaks one rule at a time. A simulation that doesn't notice proves
// nothing.
func TestSeededBugsAreFound(t *testing.T) {
	const budget = 3000
	for b := dropFence; b < bugs; b++ {
		t.Run(strings.ReplaceAll(b.String(), " ", "-"), func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(budget) {
				if r := run(t, seed, b); r.err != nil {
					t.Logf("RESULT disk simulation: %q found by seed %d: %.160v", b, seed, r.err)
					return
				}
			}
			t.Errorf("%q was not found in %d seeds", b, budget)
		})
	}
}
