package machine

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/platform/service"
	"github.com/sluice-platform/sluice/internal/platform/servicelog"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/patience"
	"github.com/sluice-platform/sluice/internal/x/pressure"
)

// serviceHolder has the machine's services and their logs, once it is bound. Safe for concurrent
// use.
type serviceHolder struct {
	mu      sync.Mutex
	manager *service.Manager
	logs    map[string]*servicelog.Log
	cancel  context.CancelFunc // ends what keeps them, not the services
	done    bool               // aborted
	running chan struct{}      // closed once there is a manager
}

func newServiceHolder() *serviceHolder { return &serviceHolder{running: make(chan struct{})} }

func (h *serviceHolder) started() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.manager != nil
}

func (h *serviceHolder) ended() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.done
}

// get returns the manager; Unavailable before the machine runs.
func (h *serviceHolder) get() (*service.Manager, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.manager == nil || h.done {
		return nil, errs.New(errs.Unavailable, "the machine isn't running")
	}
	return h.manager, nil
}

func (h *serviceHolder) log(name string) *servicelog.Log {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.logs[name]
}

// names returns the services that have a log, in order.
func (h *serviceHolder) names() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []string
	for name := range h.logs {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// abort stops managing the services. Their processes end with the container.
func (h *serviceHolder) abort() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done = true
	if h.cancel != nil {
		h.cancel()
	}
}

// stop stops all services within the machine's stop timeout and a margin.
func (h *serviceHolder) stop(ctx context.Context, now saved, margin time.Duration) error {
	m, err := h.get()
	if err != nil || now.Bind == nil {
		return nil
	}
	timeout := now.Bind.Config.Stop.TimeoutOrDefault()
	// Services that need each other stop one after the other, each with the full timeout.
	total := time.Duration(max(1, len(now.Bind.Config.Services)))*timeout + margin
	ctx, cancel := context.WithTimeout(ctx, total)
	defer cancel()
	err = m.StopAll(ctx)
	h.abort()
	return err
}

// runServices starts the machine's services, and keeps managing them in the background.
func (p *Platform) runServices(ctx context.Context, running *errgroup.Group, now saved) error {
	if err := now.Bind.Config.ValidateServices(); err != nil {
		p.fail(ctx, err)
		return nil
	}
	logs := map[string]*servicelog.Log{}
	for _, svc := range now.Bind.Config.Services {
		l, err := servicelog.Open(servicelog.Config{Dir: p.logDir(), Service: svc.Name, Log: p.log})
		if err != nil {
			p.fail(ctx, err)
			return nil
		}
		logs[svc.Name] = l
	}
	began := time.Now()
	var m *service.Manager
	m = service.New(service.Config{
		Services: now.Bind.Config.Services, Stop: now.Bind.Config.Stop, Log: p.log,
		Runner:  &runner{p: p, bind: *now.Bind, logs: logs},
		Prober:  &prober{p: p, bind: *now.Bind},
		Share:   hostShare,
		Stopped: now.Stopped, Restarts: now.Restarts, Closing: now.ReleaseAsked,
		Changed: func() { p.noteServices(ctx, m, began) },
	})
	keeping, cancel := context.WithCancel(ctx)
	for _, l := range logs {
		running.Go(func() error { return l.Run(keeping) })
	}
	running.Go(func() error { return m.Run(keeping) })
	p.services.mu.Lock()
	p.services.manager, p.services.logs, p.services.cancel = m, logs, cancel
	close(p.services.running)
	p.services.mu.Unlock()
	return nil
}

// hostShare returns how much of the time work waits here, 0 to 1; 0 if that is not known.
func hostShare() float64 {
	r, err := pressure.New().Read()
	if err != nil {
		return 0
	}
	return patience.Share(r.CPU, r.Memory, r.IO)
}

// noteServices copies the services' states into the platform's state.
func (p *Platform) noteServices(ctx context.Context, m *service.Manager, began time.Time) {
	reports, stopped := m.Reports(), m.Stopped()
	up, ready := m.Progress()
	err := p.status.update(func(s *saved) {
		s.Health.Services, s.Stopped = reports, stopped
		s.Restarts = map[string]int{}
		for _, r := range reports {
			s.Restarts[r.Name] = r.Restarts
		}
		if up {
			reachBy(s, guestapi.StateRunning, guestapi.StepServices, began)
		}
		if ready {
			reachBy(s, guestapi.StateHealthy, guestapi.StepChecks,
				s.Health.Timeline[guestapi.StateRunning])
		}
	})
	if err != nil {
		p.log.ErrorContext(ctx, "state not saved", "error", err)
	}
}

// environment returns a command's environment: the defaults, the machine's, its app's secrets, the
// given.
func environment(b guestapi.Bind, more map[string]string) []string {
	env := map[string]string{
		"PATH":              "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME":              "/root",
		"LANG":              "C.UTF-8",
		"SLUICE_MACHINE":    string(b.Machine),
		"SLUICE_NAME":       string(b.Name),
		"SLUICE_APP":        string(b.App),
		"SLUICE_NETWORK":    string(b.Network),
		"SLUICE_INSTANCE":   string(b.Instance),
		"SLUICE_WORKER":     string(b.Worker),
		"SLUICE_PRIVATE_IP": addressOf(b),
	}
	for _, layer := range []map[string]string{b.Config.Env, b.Secrets, more} {
		for k, v := range layer {
			env[k] = v
		}
	}
	all := make([]string, 0, len(env))
	for k, v := range env {
		all = append(all, k+"="+v)
	}
	slices.Sort(all)
	return all
}

func addressOf(b guestapi.Bind) string {
	if !b.Address.IsValid() {
		return ""
	}
	return b.Address.String()
}

var _ service.Runner = (*runner)(nil)
var _ service.Prober = (*prober)(nil)

// runner starts services in the container.
type runner struct {
	p    *Platform
	bind guestapi.Bind
	logs map[string]*servicelog.Log
}

// Start implements service.Runner. It also logs why a service can't be started, where people look
// for the service's own output.
func (r *runner) Start(ctx context.Context, svc fleet.Service) (service.Process, error) {
	process, err := r.p.startKept(ctx, r.bind, svc, r.logs[svc.Name])
	if err != nil && ctx.Err() == nil {
		r.logs[svc.Name].Note(ctx, "can't be started: "+err.Error())
	}
	return process, err
}

// Adopt implements service.Runner.
func (r *runner) Adopt(ctx context.Context, name string) (service.Process, error) {
	return r.p.adoptKept(ctx, name)
}
