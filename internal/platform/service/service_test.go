package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// world runs pretended processes, so that time and faults are ours.
type world struct {
	mu       sync.Mutex
	history  []string
	began    time.Time
	times    map[string][]time.Duration // of starts
	live     map[string]*pretended
	failing  map[string]bool // can't be started
	stubborn map[string]bool // don't end at SIGTERM
	notReady map[string]bool
	hangs    map[string]bool // checks don't return before their time is over
	share    float64
	fragile  map[string]time.Duration // end by themselves after this
	slow     time.Duration            // that a start takes
}

func newWorld() *world {
	return &world{began: time.Now(), times: map[string][]time.Duration{},
		live: map[string]*pretended{}, failing: map[string]bool{},
		stubborn: map[string]bool{}, notReady: map[string]bool{}, hangs: map[string]bool{},
		fragile: map[string]time.Duration{}}
}

type pretended struct {
	w    *world
	name string
	done chan int
	once sync.Once
}

func (p *pretended) PID() int { return 7 }
func (p *pretended) Forget()  {}

func (p *pretended) end(code int) {
	p.once.Do(func() {
		p.w.mu.Lock()
		delete(p.w.live, p.name)
		p.w.mu.Unlock()
		p.done <- code
	})
}

func (p *pretended) Wait(ctx context.Context) (string, error) {
	select {
	case code := <-p.done:
		return fmt.Sprintf("exit code %d", code), nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (p *pretended) Signal(sig unix.Signal) error {
	p.w.note(unix.SignalName(sig) + " " + p.name)
	if sig == unix.SIGKILL || !p.w.stubborn[p.name] {
		p.end(128 + int(sig))
	}
	return nil
}

func (w *world) note(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.history = append(w.history, what)
}

func (w *world) Start(_ context.Context, svc fleet.Service) (Process, error) {
	w.note("start " + svc.Name)
	time.Sleep(w.slow)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.times[svc.Name] = append(w.times[svc.Name], time.Since(w.began))
	if w.failing[svc.Name] {
		return nil, errs.New(errs.NotFound, "no such command")
	}
	if w.live[svc.Name] != nil {
		return nil, errors.New("runs twice")
	}
	p := &pretended{w: w, name: svc.Name, done: make(chan int, 1)}
	w.live[svc.Name] = p
	if d, ok := w.fragile[svc.Name]; ok {
		time.AfterFunc(d, func() { p.end(1) })
	}
	return p, nil
}

func (w *world) Adopt(_ context.Context, name string) (Process, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.live[name]; p != nil {
		return p, nil
	}
	return nil, errs.New(errs.NotFound, "none")
}

func (w *world) Probe(ctx context.Context, svc fleet.Service) error {
	w.mu.Lock()
	hangs := w.hangs[svc.Name]
	w.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.notReady[svc.Name] {
		return errs.New(errs.Unavailable, "refused")
	}
	return nil
}

func (w *world) set(m map[string]bool, name string, v bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m[name] = v
}

func (w *world) starts(name string) []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.times[name])
}

func (w *world) story() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.history, ", ")
}

// run runs a test on a manager in a bubble.
func run(t *testing.T, w func() *world, services []fleet.Service,
	test func(t *testing.T, w *world, m *Manager)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := w()
		m := New(Config{Services: services, Runner: w, Prober: w,
			Log: slog.New(slog.DiscardHandler), Changed: func() {},
			Share: func() float64 { w.mu.Lock(); defer w.mu.Unlock(); return w.share }})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = m.Run(ctx) }()
		synctest.Wait()
		test(t, w, m)
		cancel()
		<-done
	})
}

func svc(name string, needs ...string) fleet.Service {
	return fleet.Service{Name: name, Cmd: []string{name}, Needs: needs}
}

func stateOf(m *Manager, name string) fleet.ServiceReport {
	for _, r := range m.Reports() {
		if r.Name == name {
			return r
		}
	}
	return fleet.ServiceReport{}
}

func TestStartsAndStopsInOrder(t *testing.T) {
	run(t, newWorld, []fleet.Service{svc("c", "b"), svc("a"), svc("b", "a")},
		func(t *testing.T, w *world, m *Manager) {
			time.Sleep(4 * minUptime) // one after the other
			if started, ready := m.Progress(); !started || !ready {
				t.Error("not all ready")
			}
			if err := m.StopAll(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := w.story(); got != "start a, start b, start c, SIGTERM c, SIGTERM b, SIGTERM a" {
				t.Error(got)
			}
			if err := m.Start("a"); !errs.Is(err, errs.Conflict) {
				t.Errorf("start while stopping: %v", err)
			}
		})
}

func TestBackoffDoublesAndIsReset(t *testing.T) {
	fragile := func() *world {
		w := newWorld()
		w.fragile["a"] = time.Millisecond
		return w
	}
	run(t, fragile, []fleet.Service{svc("a")}, func(t *testing.T, w *world, m *Manager) {
		time.Sleep(60 * time.Second)
		var gaps []time.Duration
		times := w.starts("a")
		for i := range times[1:] {
			gaps = append(gaps, (times[i+1] - times[i] - time.Millisecond).Round(time.Millisecond))
		}
		ms := time.Millisecond
		want := []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms,
			6400 * ms, 10000 * ms, 10000 * ms}
		if len(gaps) < len(want) || !slices.Equal(gaps[:len(want)], want) {
			t.Errorf("gaps %v", gaps)
		}
		w.mu.Lock()
		w.fragile["a"] = backoffReset + time.Second
		w.mu.Unlock()
		time.Sleep(5 * time.Minute)
		times = w.starts("a")
		last := times[len(times)-1] - times[len(times)-2]
		if last > backoffReset+2*time.Second {
			t.Errorf("restart after a long run took %v", last-backoffReset-time.Second)
		}
		if r := stateOf(m, "a"); r.Restarts != len(times)-1 {
			t.Errorf("%d restarts reported, %d starts", r.Restarts, len(times))
		}
	})
}

func TestStubbornServiceIsKilled(t *testing.T) {
	stubborn := func() *world {
		w := newWorld()
		w.stubborn["a"] = true
		return w
	}
	run(t, stubborn, []fleet.Service{svc("a")}, func(t *testing.T, w *world, m *Manager) {
		began := time.Now()
		if err := m.StopAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != fleet.DefaultStopTimeout ||
			w.story() != "start a, SIGTERM a, SIGKILL a" {
			t.Errorf("%v: %s", took, w.story())
		}
	})
}

func TestStopIsSticky(t *testing.T) {
	run(t, newWorld, []fleet.Service{svc("a"), svc("b", "a")},
		func(t *testing.T, w *world, m *Manager) {
			time.Sleep(2 * minUptime)
			if err := m.Stop("a"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			if r := stateOf(m, "a"); r.State != Stopped ||
				!slices.Equal(m.Stopped(), []string{"a"}) ||
				len(w.starts("a")) != 1 {
				t.Errorf("%+v, %v", r, m.Stopped())
			}
			if r := stateOf(m, "b"); r.State != Ready {
				t.Errorf("what needs it is %s", r.State)
			}
			if err := m.Start("a"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(minUptime)
			synctest.Wait()
			if r := stateOf(m, "a"); r.State != Ready || r.Restarts != 0 {
				t.Errorf("%+v", r)
			}
			if err := m.Restart("a"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(minUptime)
			synctest.Wait()
			if r := stateOf(m, "a"); r.State != Ready || r.Restarts != 0 ||
				len(w.starts("a")) != 3 {
				t.Errorf("after a restart %+v, starts %v", r, w.starts("a"))
			}
		})
}

func TestStopDuringBackoff(t *testing.T) {
	failing := func() *world {
		w := newWorld()
		w.failing["a"] = true
		return w
	}
	run(t, failing, []fleet.Service{svc("a")}, func(t *testing.T, w *world, m *Manager) {
		time.Sleep(20 * time.Second)
		if r := stateOf(m, "a"); r.State != Failed ||
			!strings.Contains(r.Error, "no such command") {
			t.Errorf("%+v", r)
		}
		began := time.Now()
		if err := m.StopAll(t.Context()); err != nil || time.Since(began) > 0 {
			t.Errorf("stop took %v, %v", time.Since(began), err)
		}
	})
}

func TestChecks(t *testing.T) {
	a := svc("a")
	a.Check = &fleet.Check{Kind: fleet.CheckTCP, Port: 1, Grace: 5 * time.Second}
	slow := func() *world {
		w := newWorld()
		w.notReady["a"] = true
		return w
	}
	run(t, slow, []fleet.Service{a, svc("b", "a")}, func(t *testing.T, w *world, m *Manager) {
		time.Sleep(time.Second)
		if r := stateOf(m, "a"); r.State != Running || r.Error != "" {
			t.Errorf("within grace %+v", r)
		}
		if r := stateOf(m, "b"); r.State != Stopped {
			t.Errorf("what needs it is %s", r.State)
		}
		time.Sleep(10 * time.Second)
		if r := stateOf(m, "a"); !strings.Contains(r.Error, "refused") {
			t.Errorf("after grace %+v", r)
		}
		w.set(w.notReady, "a", false)
		time.Sleep(2 * time.Second)
		if a, b := stateOf(m, "a"), stateOf(m, "b"); a.State != Ready || a.Error != "" ||
			b.State != Ready {
			t.Errorf("%+v %+v", a, b)
		}
		w.set(w.notReady, "a", true)
		time.Sleep(2 * time.Second)
		if r := stateOf(m, "a"); r.State != Running {
			t.Errorf("failing again %+v", r)
		}
	})
}

// TestALateCheckUnderPressureIsNoFailure: unless it is late three times in a row. One that fails is
// a failure at once.
func TestALateCheckUnderPressureIsNoFailure(t *testing.T) {
	a := svc("a")
	a.Check = &fleet.Check{Kind: fleet.CheckTCP, Port: 1, Interval: time.Second,
		Timeout: time.Second}
	for _, c := range []struct {
		share float64
		late  time.Duration
		want  string
	}{{0, 2500 * time.Millisecond, Running}, {0.9, 4500 * time.Millisecond, Ready},
		{0.9, 8 * time.Second, Running}} {
		run(t, newWorld, []fleet.Service{a}, func(t *testing.T, w *world, m *Manager) {
			w.mu.Lock()
			w.share = c.share
			w.mu.Unlock()
			time.Sleep(2500 * time.Millisecond)
			if r := stateOf(m, "a"); r.State != Ready {
				t.Fatalf("at first %+v", r)
			}
			w.set(w.hangs, "a", true)
			time.Sleep(c.late)
			if r := stateOf(m, "a"); r.State != c.want {
				t.Errorf("at a share of %v, late for %s: %+v, want %s", c.share, c.late, r, c.want)
			}
			w.set(w.hangs, "a", false)
			time.Sleep(3 * time.Second)
			if r := stateOf(m, "a"); r.State != Ready {
				t.Errorf("well again %+v", r)
			}
			w.set(w.notReady, "a", true)
			time.Sleep(1500 * time.Millisecond)
			if r := stateOf(m, "a"); r.State != Running {
				t.Errorf("failing %+v", r)
			}
		})
	}
}

// A service that ends over and over is never ready, however often it is looked at, whether it ends
// at once or has passed its check first; what is known of its last end is said meanwhile.
func TestCrashLoopIsNeverReady(t *testing.T) {
	checked := svc("b")
	checked.Check = &fleet.Check{Kind: fleet.CheckTCP, Port: 1}
	fragile := func() *world {
		w := newWorld()
		w.fragile["a"], w.fragile["b"] = 2*time.Millisecond, 150*time.Millisecond
		w.slow = 3 * time.Millisecond
		return w
	}
	run(t, fragile, []fleet.Service{svc("a"), checked}, func(t *testing.T, w *world, m *Manager) {
		time.Sleep(200 * time.Millisecond) // the first run of b passes its check
		for range 60_000 {
			time.Sleep(time.Millisecond)
			for _, name := range []string{"a", "b"} {
				r := stateOf(m, name)
				if r.State == Ready {
					t.Fatalf("%s is ready after %d restarts", name, r.Restarts)
				}
				if r.Restarts > 0 && !strings.Contains(r.Error, "exit code 1") {
					t.Fatalf("%+v doesn't say how it ended", r)
				}
			}
		}
		w.mu.Lock()
		clear(w.fragile)
		w.mu.Unlock()
		time.Sleep(time.Minute)
		for _, name := range []string{"a", "b"} {
			if r := stateOf(m, name); r.State != Ready || r.Error != "" {
				t.Errorf("once it stays up: %+v", r)
			}
		}
	})
}

// TestReportsTellOfEnds: when a service was started, how it ended by itself, and when it is tried
// again.
func TestReportsTellOfEnds(t *testing.T) {
	broken := func() *world {
		w := newWorld()
		w.fragile["a"], w.failing["b"] = 2*time.Second, true
		return w
	}
	run(t, broken, []fleet.Service{svc("a"), svc("b")}, func(t *testing.T, w *world, m *Manager) {
		began := time.Now()
		time.Sleep(time.Second)
		if r := stateOf(m, "a"); r.StartedAt.Sub(began).Abs() > time.Millisecond || r.Exit != "" ||
			!r.ExitedAt.IsZero() || r.StartedAt.Location() != time.UTC {
			t.Errorf("%+v", r)
		}
		r := stateOf(m, "b") // tried after 100, 300, 700 ms
		if !r.StartedAt.IsZero() || r.Exit != "no such command" || !r.Unstartable ||
			r.RetryMS != 800 || r.ExitedAt.Sub(began) != 700*time.Millisecond {
			t.Errorf("%+v", r)
		}
		time.Sleep(time.Second + 50*time.Millisecond)
		if r := stateOf(m, "a"); r.Exit != "exit code 1" || r.Unstartable || r.RetryMS != 100 ||
			r.ExitedAt.Sub(r.StartedAt) != 2*time.Second {
			t.Errorf("%+v", r)
		}
		if err := m.Stop("a"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if r := stateOf(m, "a"); r.State != Stopped || r.Exit != "exit code 1" {
			t.Errorf("what happened stays: %+v", r)
		}
	})
}

func TestTakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		if _, err := w.Start(t.Context(), svc("a")); err != nil {
			t.Fatal(err)
		}
		m := New(Config{Services: []fleet.Service{svc("a"), svc("b")}, Runner: w, Prober: w,
			Log:     slog.New(slog.DiscardHandler),
			Changed: func() {}, Restarts: map[string]int{"a": 4}, Closing: true})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = m.Run(ctx) }()
		if err := m.StopAll(ctx); err != nil {
			t.Fatal(err)
		}
		if got := w.story(); got != "start a, SIGTERM a" {
			t.Error(got)
		}
		if r := stateOf(m, "a"); r.Restarts != 4 {
			t.Errorf("%+v", r)
		}
		cancel()
		<-done
	})
}
