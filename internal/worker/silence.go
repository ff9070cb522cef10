package worker

import (
	"context"
	"strconv"
	"time"

	"github.com/sluice-platform/sluice/internal/worker/pool"
	"github.com/sluice-platform/sluice/internal/x/patience"
)

// watchAlive polls a VM's platform until ctx ends, and reports when it answers nothing. It only
// reports: restarting a stuck platform is the work of the VM's init.
func (m *machine) watchAlive(ctx context.Context, vm *pool.VM) {
	after := m.host.cfg.SilentAfter
	limit := after / 5 // of one question; patience.Watch counts no longer gaps than 2 s
	var silent patience.Watch
	answers, last := 0, m.host.now()
	for ctx.Err() == nil {
		began := time.Now()
		asking, cancel := context.WithTimeout(ctx, limit)
		err := vm.Guest.Alive(asking)
		cancel()
		if err == nil {
			answers, last = answers+1, m.host.now()
		}
		spent := silent.Look(time.Now(), strconv.Itoa(answers), m.host.share())
		switch {
		case err == nil:
			m.setSilent(ctx, time.Time{})
			sleep(ctx, after/2)
			continue
		case spent >= after:
			m.setSilent(ctx, last)
		}
		// a platform that refuses is probed as often as a mute one
		sleep(ctx, limit-time.Since(began))
	}
}

// setSilent records since when the platform has been silent; zero: it answers. It does nothing once
// ctx has ended, because the observation is then of an earlier VM.
func (m *machine) setSilent(ctx context.Context, since time.Time) {
	m.mu.Lock()
	changed := ctx.Err() == nil && !m.silent.Equal(since)
	if changed {
		m.silent = since
	}
	m.mu.Unlock()
	if !changed {
		return
	}
	if since.IsZero() {
		m.log.WarnContext(ctx, "platformd of the VM answers again")
	} else {
		m.log.WarnContext(ctx, "platformd of the VM answers nothing", "since", since)
	}
	m.nudge()
}

// silence returns since when the VM's platform has not answered; zero: it answers.
func (m *machine) silence() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.silent
}
