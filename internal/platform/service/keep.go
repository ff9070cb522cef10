package service

import (
	"cmp"
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/patience"
)

// keep runs one service until ctx ends, over all its restarts. p is its running process, or nil.
func (m *Manager) keep(ctx context.Context, u *unit, p Process) {
	again, uptime := backoffFirst, time.Duration(0) // what runs already has shown that it does
	if p == nil {
		uptime = u.firstUptime()
	}
	var err error
	for ctx.Err() == nil {
		if p == nil {
			if m.await(ctx, func() bool { return m.mayRunLocked(u) }) != nil {
				return
			}
			p, err = m.start(ctx, u)
		}
		upSince, ran := time.Now(), p != nil
		if ran {
			err = m.attend(ctx, u, p, uptime)
			p = nil
		}
		if ctx.Err() != nil {
			return
		}
		if time.Since(upSince) >= backoffReset {
			again = backoffFirst
		}
		if !m.endedByItself(u, err, ran, again) {
			again, uptime = backoffFirst, u.firstUptime()
			continue
		}
		uptime = 2 * again
		m.pause(ctx, u, again)
		again = min(2*again, backoffMost)
	}
}

func (m *Manager) start(ctx context.Context, u *unit) (Process, error) {
	m.set(u, func() { u.state, u.err = Starting, u.whyAgain() })
	p, err := m.cfg.Runner.Start(ctx, u.svc)
	if err != nil {
		return nil, err
	}
	m.set(u, func() { u.startedAt = wallClock() })
	return p, nil
}

// whyAgain says why a service is started again, "" if it is not. A start may take long, and what is
// looked for meanwhile is how the last run ended.
func (u *unit) whyAgain() string {
	if u.last == "" {
		return ""
	}
	return "started again after: " + u.last
}

// wallClock is the time as reports have it, which are compared.
func wallClock() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// endedByItself notes the end of a run, or that there was none, and reports whether nobody had
// asked for it. It is tried again after that time.
func (m *Manager) endedByItself(u *unit, err error, ran bool, again time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.noteLocked()
	u.pid = 0
	if !m.wantedLocked(u) {
		u.state, u.again, u.err, u.last = Stopped, false, "", ""
		return false
	}
	u.state = Failed
	u.restarts++
	if err != nil {
		u.err, u.last = err.Error(), err.Error()
		u.exit, u.exitedAt, u.unstartable, u.retry = err.Error(), wallClock(), !ran, again
	}
	return true
}

// pause waits before the next try, or until nobody wants one.
func (m *Manager) pause(ctx context.Context, u *unit, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	if m.await(ctx, func() bool { return !m.wantedLocked(u) }) == nil {
		m.set(u, func() { u.state, u.again, u.err, u.last = Stopped, false, "", "" })
	}
}

// attend follows one process until it ends, and stops it when it is no longer wanted. The service
// becomes ready only once it has stayed up for uptime. The error says how the process ended.
func (m *Manager) attend(ctx context.Context, u *unit, p Process, uptime time.Duration) error {
	m.set(u, func() { u.state, u.pid = Running, p.PID() })
	alive, gone := context.WithCancel(ctx)
	defer gone()
	var side errgroup.Group
	side.Go(func() error {
		m.probe(alive, u, uptime)
		return nil
	})
	side.Go(func() error {
		m.stopWhenUnwanted(alive, u, p)
		return nil
	})
	how, err := p.Wait(ctx)
	gone()
	_ = side.Wait()
	if err != nil {
		return err
	}
	p.Forget()
	return errors.New(how)
}

// stopWhenUnwanted sends the stop signal once the service is no longer wanted, and SIGKILL after
// the stop timeout.
func (m *Manager) stopWhenUnwanted(ctx context.Context, u *unit, p Process) {
	if m.await(ctx, func() bool { return m.mayStopLocked(u) }) != nil {
		return
	}
	m.set(u, func() { u.state = Stopping })
	sig, err := StopSignal(m.cfg.Stop)
	if err == nil {
		err = p.Signal(sig)
	}
	if err != nil {
		m.cfg.Log.WarnContext(ctx, "stop signal not sent", "service", u.svc.Name, "error", err)
	}
	timer := time.NewTimer(m.cfg.Stop.TimeoutOrDefault())
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return
	case <-timer.C:
	}
	m.cfg.Log.WarnContext(ctx, "service killed", "service", u.svc.Name, "timeout_ms",
		m.cfg.Stop.TimeoutOrDefault().Milliseconds())
	if err := p.Signal(unix.SIGKILL); err != nil {
		m.cfg.Log.WarnContext(ctx, "service not killed", "service", u.svc.Name, "error", err)
	}
}

// probe makes a running service ready, and unready when its check fails later.
func (m *Manager) probe(ctx context.Context, u *unit, uptime time.Duration) {
	check, due := u.svc.Check, time.Now().Add(uptime)
	if check == nil {
		m.awaitUptime(ctx, u, due)
		return
	}
	began, wait, passed, missed := time.Now(), checkFirst, false, 0
	for ctx.Err() == nil {
		late, err := m.probeOnce(ctx, u.svc)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && time.Now().Before(due):
			m.awaitUptime(ctx, u, due)
			wait = checkFirst // and is asked again
		case err == nil:
			passed, missed, wait = true, 0, cmp.Or(check.Interval, fleet.DefaultCheckInterval)
			m.setIfUp(u, Ready, "")
		case passed && late && missed+1 < checkMisses && m.pressed():
			missed++ // nobody got to answer in time: that says nothing of the service
		case passed:
			m.setIfUp(u, Running, "check: "+err.Error())
		case time.Since(began) > cmp.Or(check.Grace, fleet.DefaultCheckGrace):
			m.setIfUp(u, Running, "not ready: "+err.Error())
		case time.Since(began) > checkQuiet:
			m.setIfUp(u, Running, "not ready yet: "+err.Error())
		}
		if backoff.Sleep(ctx, wait) != nil {
			return
		}
		if !passed {
			wait = min(wait+wait/2, cmp.Or(check.Interval, fleet.DefaultCheckInterval))
		}
	}
}

// awaitUptime makes a service ready once it has stayed up until then.
func (m *Manager) awaitUptime(ctx context.Context, u *unit, then time.Time) {
	if backoff.Sleep(ctx, time.Until(then)) != nil {
		return
	}
	if u.svc.Check == nil {
		m.setIfUp(u, Ready, "")
	}
}

// firstUptime returns how long a new service must stay up to be ready: 0 if it has a check.
func (u *unit) firstUptime() time.Duration {
	if u.svc.Check != nil {
		return 0
	}
	return minUptime
}

// probeOnce runs a service's check once; late: it timed out.
func (m *Manager) probeOnce(ctx context.Context, svc fleet.Service) (late bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(svc.Check.Timeout, fleet.DefaultCheckTimeout))
	defer cancel()
	err = m.cfg.Prober.Probe(ctx, svc)
	return err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded), err
}

// pressed says that what runs in this VM gets less than half of what it could use.
func (m *Manager) pressed() bool {
	return m.cfg.Share != nil && m.cfg.Share() >= patience.UnderPressure
}

// setIfUp changes the state of a process that isn't being stopped. What doesn't change wakes
// nobody.
func (m *Manager) setIfUp(u *unit, state, reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u.state != Running && u.state != Ready || u.state == state && u.err == reason {
		return
	}
	u.state, u.err = state, reason
	m.noteLocked()
}
