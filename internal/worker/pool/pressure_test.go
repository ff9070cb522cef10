package pool_test

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/worker/pool"
)

// claimMany claims n VMs at once and returns how many were booted side by side.
func claimMany(t *testing.T, r *rig, n int) int {
	t.Helper()
	var g errgroup.Group
	for range n {
		g.Go(func() error { _, err := r.pool.Claim(context.Background()); return err })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	r.driver.mu.Lock()
	defer r.driver.mu.Unlock()
	return r.driver.most
}

func TestFewerVMsBootAtOnceUnderPressure(t *testing.T) {
	for _, c := range []struct {
		share float64
		want  int
	}{{0, 4}, {0.49, 4}, {0.5, 2}, {0.8, 1}, {1, 1}} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, pool.Config{Starts: 4}, &driver{delay: 50 * time.Millisecond})
			r.share.Store(c.share)
			if got := claimMany(t, r, 12); got != c.want {
				t.Errorf("at a share of %v, %d VMs booted at once, want %d", c.share, got, c.want)
			}
		})
	}
}

func TestTheRefillStandsBackUnderPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, pool.Config{Size: 1, PressedMax: 20 * time.Second}, &driver{})
		r.eventually("full", func() bool { return r.pool.Ready() == 1 })
		r.share.Store(0.9)
		began := time.Now()
		r.claim()
		r.claim() // one that is waited for is booted all the same
		if took := time.Since(began); took > time.Second {
			t.Errorf("who waited for a VM got it after %s", took)
		}
		time.Sleep(15 * time.Second)
		if n := r.pool.Ready(); n != 0 {
			t.Errorf("%d VMs were booted ahead of time, under pressure", n)
		}
		time.Sleep(10 * time.Second)
		if n := r.pool.Ready(); n != 1 {
			t.Errorf("%d VMs are ready after the longest time that the pool stands back", n)
		}
	})
}

// TestBootsThatFailUnderPressureBackOffAsOthers: the pool stands back for the pressure once, and
// not again for each boot that fails.
func TestBootsThatFailUnderPressureBackOffAsOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRigUnder(t, 0.9, pool.Config{Size: 1, PressedMax: time.Minute,
			BootTimeout: time.Second}, &driver{delay: time.Hour})
		time.Sleep(59 * time.Second)
		if n := r.starts(); n != 0 {
			t.Errorf("%d boots before the longest time that the pool stands back", n)
		}
		// each boot takes ten seconds to fail; then 1, 2, 4, 8, 16, 30 seconds
		time.Sleep(4 * time.Minute)
		if n := r.starts(); n < 7 || n > 9 {
			t.Errorf("%d boots in four minutes, want 7 to 9", n)
		}
	})
}

func TestABootIsGivenUpByWhatItDoesNotDo(t *testing.T) {
	for _, c := range []struct {
		name        string
		delay       time.Duration // until it answers; an hour: never
		talks       bool
		share       float64
		least, most time.Duration
		boots       bool
	}{
		{"silent", time.Hour, false, 0, 30 * time.Second, 31 * time.Second, false},
		{"silent under pressure", time.Hour, false, 1, 300 * time.Second, 310 * time.Second, false},
		{"talks and talks", time.Hour, true, 0, 90 * time.Second, 92 * time.Second, false},
		{"slow, and says so", 70 * time.Second, true, 0, 70 * time.Second, 71 * time.Second, true},
		{"slow under pressure", 200 * time.Second, false, 0.9, 200 * time.Second,
			201 * time.Second, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &driver{delay: c.delay}
				if c.talks {
					d.talk = filepath.Join(t.TempDir(), "console")
				}
				r := newRig(t, pool.Config{BootTimeout: 30 * time.Second}, d)
				r.share.Store(c.share)
				before, began := r.pool.Progress(), time.Now()
				_, err := r.pool.Claim(t.Context())
				if took := time.Since(began); (err == nil) != c.boots || took < c.least ||
					took > c.most {
					t.Errorf("after %s: %v; want a VM: %v, between %s and %s", took, err, c.boots,
						c.least, c.most)
				}
				if further := r.pool.Progress() > before; further != (c.talks || c.boots) {
					t.Errorf("who waited was told of progress: %v", further)
				}
			})
		})
	}
}
