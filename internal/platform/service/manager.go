package service

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Manager runs the services of one machine. Safe for concurrent use.
type Manager struct {
	cfg   Config
	units []*unit

	mu      sync.Mutex
	changed chan struct{} // closed at the next change of any unit
	closing bool          // StopAll was called
	adopted bool          // the processes of an earlier Manager are known
}

// unit is one service. Its fields but svc are guarded by Manager.mu.
type unit struct {
	svc      fleet.Service
	state    string
	up       bool // it is wanted to run
	again    bool // restart it once
	pid      int
	restarts int
	err      string
	last     string // how it last ended by itself; forgotten when somebody stops it

	startedAt   time.Time // zero for a process that was taken over
	exit        string    // as last, and kept
	exitedAt    time.Time
	unstartable bool
	retry       time.Duration
}

// New returns a manager of services for which Check has returned nil.
func New(cfg Config) *Manager {
	m := &Manager{cfg: cfg, changed: make(chan struct{}), closing: cfg.Closing}
	for _, svc := range cfg.Services {
		m.units = append(m.units, &unit{svc: svc, state: Stopped,
			up:       !slices.Contains(cfg.Stopped, svc.Name),
			restarts: cfg.Restarts[svc.Name]})
	}
	return m
}

// Run keeps the wanted services running until ctx ends. It stops none of them.
func (m *Manager) Run(ctx context.Context) error {
	left := m.adopt(ctx)
	g, ctx := errgroup.WithContext(ctx)
	for i, u := range m.units {
		g.Go(func() error {
			m.keep(ctx, u, left[i])
			return nil
		})
	}
	g.Go(func() error {
		for {
			_, changed := m.peek()
			m.cfg.Changed()
			select {
			case <-changed:
			case <-ctx.Done():
				return nil
			}
		}
	})
	return g.Wait()
}

// adopt takes over the processes that an earlier Manager left running. Reports wait for it.
func (m *Manager) adopt(ctx context.Context) []Process {
	left := make([]Process, len(m.units))
	var g errgroup.Group
	for i, u := range m.units {
		g.Go(func() error {
			p, err := m.cfg.Runner.Adopt(ctx, u.svc.Name)
			if err == nil {
				left[i] = p
				return nil
			}
			if !errs.Is(err, errs.NotFound) {
				m.cfg.Log.WarnContext(ctx, "service not taken over", "service",
					u.svc.Name, "error", err)
			}
			return nil
		})
	}
	_ = g.Wait() // none returns one
	m.mu.Lock()
	defer m.mu.Unlock()
	m.adopted = true
	for i, u := range m.units {
		if left[i] == nil {
			u.again = false
			continue
		}
		u.state, u.pid = Running, left[i].PID()
	}
	m.noteLocked()
	return left
}

// Reports returns each service's state.
func (m *Manager) Reports() []fleet.ServiceReport {
	all, _ := m.peek()
	return all
}

func (m *Manager) peek() ([]fleet.ServiceReport, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]fleet.ServiceReport, 0, len(m.units))
	for _, u := range m.units {
		all = append(all, fleet.ServiceReport{Name: u.svc.Name, State: u.state, PID: u.pid,
			Restarts: u.restarts, Error: u.err,
			StartedAt: u.startedAt, Exit: u.exit, ExitedAt: u.exitedAt, Unstartable: u.unstartable,
			RetryMS: u.retry.Milliseconds()})
	}
	return all, m.changed
}

// Stopped returns the services that somebody stopped.
func (m *Manager) Stopped() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for _, u := range m.units {
		if !u.up && !m.closing {
			names = append(names, u.svc.Name)
		}
	}
	return names
}

// Progress reports whether every wanted service has been tried, and whether each is ready. A
// service that can't be started or ends at once counts as tried, and so do those that wait for it.
// The manager keeps retrying them, but nobody should wait for them.
func (m *Manager) Progress() (started, ready bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	started, ready = true, true
	failed := false
	for _, u := range m.units {
		if u.up {
			started = started && (u.state == Running || u.state == Ready)
			ready = ready && u.state == Ready
			failed = failed || u.restarts > 0
		}
	}
	return started || failed, ready
}

// Start marks a service as wanted. NotFound: there is no such service. Conflict: all are being
// stopped.
func (m *Manager) Start(name string) error {
	return m.want(name, func(u *unit) { u.up = true })
}

// Stop stops a service until Start. It leaves services that need it alone.
func (m *Manager) Stop(name string) error {
	return m.want(name, func(u *unit) { u.up, u.again = false, false })
}

// Restart stops a service and starts it again.
func (m *Manager) Restart(name string) error {
	return m.want(name, func(u *unit) {
		u.again = u.state == Running || u.state == Ready || !m.adopted
		u.up = true
	})
}

func (m *Manager) want(name string, change func(*unit)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, u := range m.units {
		if u.svc.Name != name {
			continue
		}
		if m.closing {
			return errs.New(errs.Conflict, "the machine is stopping")
		}
		change(u)
		m.noteLocked()
		return nil
	}
	return errs.New(errs.NotFound, "the machine has no service %q", name)
}

// StopAll stops every service, those that need others first. It returns when none runs any more, or
// ctx ends. Run must be active.
func (m *Manager) StopAll(ctx context.Context) error {
	m.mu.Lock()
	m.closing = true
	m.noteLocked()
	m.mu.Unlock()
	return m.await(ctx, func() bool {
		return m.adopted && !slices.ContainsFunc(m.units,
			func(u *unit) bool { return u.state != Stopped })
	})
}

// noteLocked wakes everybody who waits for a change.
func (m *Manager) noteLocked() {
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *Manager) set(u *unit, change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
	m.noteLocked()
}

// await returns nil once cond, which is called with mu held, is true.
func (m *Manager) await(ctx context.Context, cond func() bool) error {
	for {
		m.mu.Lock()
		ok, changed := cond(), m.changed
		m.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// mayRunLocked reports whether u is wanted and what it needs is ready.
func (m *Manager) mayRunLocked(u *unit) bool {
	if !m.wantedLocked(u) {
		return false
	}
	for _, name := range u.svc.Needs {
		for _, o := range m.units {
			if o.svc.Name == name && o.state != Ready {
				return false
			}
		}
	}
	return true
}

func (m *Manager) wantedLocked(u *unit) bool { return u.up && !u.again && !m.closing }

// mayStopLocked reports whether u should stop now. When all are stopped, those that need u stop
// first.
func (m *Manager) mayStopLocked(u *unit) bool {
	if m.wantedLocked(u) {
		return false
	}
	if !m.closing {
		return true
	}
	for _, o := range m.units {
		if o.state != Stopped && slices.Contains(o.svc.Needs, u.svc.Name) {
			return false
		}
	}
	return true
}
