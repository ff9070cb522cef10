package worker_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/worker"
)

// TestASilentPlatformIsReported: a platform that takes questions and answers none is told from one
// that answers, with since when; and that it answers again.
func TestASilentPlatformIsReported(t *testing.T) {
	r := newRig(t, 0, func(c *worker.Config) { c.SilentAfter = 2 * time.Second })
	r.newDisk(m1)
	r.start()
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	if v := r.awaitPhase(m1, 1, fleet.PhaseHealthy); !v.SilentSince.IsZero() || !v.Healthy() {
		t.Fatalf("it answers, and is reported as %+v", v)
	}
	var mute atomic.Bool
	r.host.setFault(func(_ *fakeVM, req *http.Request) {
		for mute.Load() {
			select {
			case <-req.Context().Done():
				panic(http.ErrAbortHandler)
			case <-time.After(time.Millisecond):
			}
		}
	})
	began := time.Now()
	mute.Store(true)
	r.eventually("silent", func() bool { return !r.feed.vm(m1).SilentSince.IsZero() })
	v := r.feed.vm(m1)
	if v.Phase != fleet.PhaseHealthy || v.Healthy() || v.SilentSince.After(time.Now()) ||
		v.SilentSince.Before(began.Add(-time.Minute)) {
		t.Errorf("it is silent since %s, and is reported as %+v", began, v)
	}
	mute.Store(false)
	r.eventually("answers", func() bool { return r.feed.vm(m1).Healthy() })
}

// TestSilenceCountsLessUnderPressure: the platform of a host on which all else waits, too, is let
// be for longer.
func TestSilenceCountsLessUnderPressure(t *testing.T) {
	r := newRig(t, 0, func(c *worker.Config) { c.SilentAfter = 300 * time.Millisecond })
	r.pressure.Store(&fleet.Pressure{CPU: 1, Load: 40, Cores: 2})
	r.newDisk(m1)
	r.start()
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	r.awaitPhase(m1, 1, fleet.PhaseHealthy)
	r.eventually("its pressure is known", func() bool { return r.feed.last().Pressure != nil })
	r.host.setFault(func(_ *fakeVM, req *http.Request) {
		<-req.Context().Done()
		panic(http.ErrAbortHandler)
	})
	began := time.Now()
	r.eventually("silent", func() bool { return !r.feed.vm(m1).SilentSince.IsZero() })
	if took := time.Since(began); took < 5*r.cfg.SilentAfter {
		t.Errorf("reported after %s, as if there were no pressure", took)
	}
}
