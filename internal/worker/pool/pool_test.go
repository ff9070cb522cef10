package pool_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/worker/pool"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// driver starts VMs that answer that they are empty, after a while.
type driver struct {
	mu       sync.Mutex
	vms      map[fleet.VMID]*vm
	starts   int
	parallel int // starts that have not answered yet
	most     int
	delay    time.Duration
	fail     error
	mute     bool   // VMs never answer
	talk     string // file that each look at a VM's console makes longer; "": VMs write nothing
}

func (d *driver) Name() string                                { return "test" }
func (d *driver) Probe(context.Context) error                 { return nil }
func (d *driver) Adopt(context.Context) ([]runtime.VM, error) { return nil, nil }

func (d *driver) Start(_ context.Context, spec runtime.Spec) (runtime.VM, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.starts++
	if d.fail != nil {
		return nil, d.fail
	}
	d.parallel++
	d.most = max(d.most, d.parallel)
	var boot guestapi.Boot
	if err := json.Unmarshal(spec.Boot, &boot); err != nil {
		return nil, err
	}
	v := &vm{driver: d, id: spec.ID, token: boot.ControlToken, from: time.Now().Add(d.delay),
		done: make(chan struct{})}
	d.vms[spec.ID] = v
	return v, nil
}

type vm struct {
	driver *driver
	id     fleet.VMID
	token  string
	from   time.Time
	once   sync.Once
	first  sync.Once
	done   chan struct{}
}

func (v *vm) ID() fleet.VMID                                   { return v.id }
func (v *vm) HostLink() string                                 { return "vm" + string(v.id) }
func (v *vm) SetLimits(context.Context, fleet.Resources) error { return nil }
func (v *vm) Freeze(context.Context) error                     { return nil }
func (v *vm) Thaw(context.Context) error                       { return nil }
func (v *vm) Status() runtime.Status {
	return runtime.Status{Running: true}
}
func (v *vm) Done() <-chan struct{} { return v.done }

// ConsolePath is where the VM writes, and it has just written something.
func (v *vm) ConsolePath() string {
	if path := v.driver.talk; path != "" {
		if f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
			_, _ = f.WriteString("line\n")
			_ = f.Close()
		}
	}
	return v.driver.talk
}

func (v *vm) Kill(context.Context) error {
	v.once.Do(func() { close(v.done) })
	return nil
}

func (v *vm) Remove(ctx context.Context) error {
	v.driver.mu.Lock()
	defer v.driver.mu.Unlock()
	delete(v.driver.vms, v.id)
	return v.Kill(ctx)
}

// Dial answers one request.
func (v *vm) Dial(context.Context) (net.Conn, error) {
	v.driver.mu.Lock()
	mute := v.driver.mute
	v.driver.mu.Unlock()
	if mute || time.Now().Before(v.from) {
		return nil, errs.New(errs.Unavailable, "nobody listens yet")
	}
	here, there := net.Pipe()
	go func() {
		l := &oneConn{conn: make(chan net.Conn, 1), over: make(chan struct{})}
		l.conn <- there
		server := &http.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Connection", "close")
				if r.Header.Get("Authorization") != "Bearer "+v.token {
					w.WriteHeader(http.StatusForbidden)
					return
				}
				v.first.Do(func() {
					v.driver.mu.Lock()
					v.driver.parallel--
					v.driver.mu.Unlock()
				})
				_ = json.NewEncoder(w).Encode(guestapi.Health{VM: v.id, State: guestapi.StateEmpty})
			}),
			ConnState: func(_ net.Conn, s http.ConnState) {
				if s == http.StateClosed {
					l.once.Do(func() { close(l.over) })
				}
			},
		}
		_ = server.Serve(l)
	}()
	return here, nil
}

// oneConn is a listener that ends with its only connection.
type oneConn struct {
	conn chan net.Conn
	over chan struct{}
	once sync.Once
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.over:
		return nil, net.ErrClosed
	}
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{} }

type rig struct {
	t        *testing.T
	driver   *driver
	registry *pool.Registry
	pool     *pool.Pool
	busy     atomic.Bool
	share    atomic.Value // float64
}

func newRig(t *testing.T, cfg pool.Config, d *driver) *rig {
	t.Helper()
	return newRigUnder(t, 0, cfg, d)
}

// newRigUnder returns a rig whose host is under pressure from the beginning.
func newRigUnder(t *testing.T, share float64, cfg pool.Config, d *driver) *rig {
	t.Helper()
	d.vms = map[fleet.VMID]*vm{}
	registry, err := pool.OpenRegistry(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, driver: d, registry: registry}
	r.share.Store(share)
	cfg.Quiet = max(cfg.Quiet, time.Millisecond)
	r.pool = pool.New(cfg, pool.Deps{
		Driver: d, Registry: registry, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
		Busy: r.busy.Load, Changed: func() {},
		Share: func() float64 { s, _ := r.share.Load().(float64); return s },
	})
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- r.pool.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-over; err != nil {
			t.Errorf("pool ended with %v", err)
		}
	})
	return r
}

func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: not within 2 min", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func (r *rig) starts() int {
	r.driver.mu.Lock()
	defer r.driver.mu.Unlock()
	return r.driver.starts
}

func (r *rig) claim() *pool.VM {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Minute)
	defer cancel()
	vm, err := r.pool.Claim(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	return vm
}

func TestFillsOneAtATimeAndRefills(t *testing.T) {
	r := newRig(t, pool.Config{Size: 3}, &driver{delay: 5 * time.Millisecond})
	r.eventually("full", func() bool { return r.pool.Ready() == 3 })
	if r.driver.most != 1 {
		t.Errorf("%d boots at once", r.driver.most)
	}
	vm := r.claim()
	known, err := r.registry.All()
	if err != nil || known[vm.ID()].ControlToken != vm.ControlToken {
		t.Fatalf("the registry has %+v of %s, %v", known, vm.ID(), err)
	}
	r.eventually("full again", func() bool { return r.pool.Ready() == 3 })
	if err := r.pool.Discard(t.Context(), vm); err != nil {
		t.Fatal(err)
	}
	if known, _ := r.registry.All(); len(known) != 3 {
		t.Fatalf("the registry has %d VMs", len(known))
	}
}

func TestEveryClaimGetsAVMOfItsOwn(t *testing.T) {
	r := newRig(t, pool.Config{Size: 2}, &driver{delay: 2 * time.Millisecond})
	var mu sync.Mutex
	got := map[fleet.VMID]bool{}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			vm, err := r.pool.Claim(context.Background())
			mu.Lock()
			defer mu.Unlock()
			if err != nil || got[vm.ID()] {
				t.Errorf("%v, or given out twice", err)
				return
			}
			got[vm.ID()] = true
		})
	}
	all.Wait()
	r.eventually("full", func() bool { return r.pool.Ready() == 2 })
}

func TestRefillStandsBackWhileMachinesMove(t *testing.T) {
	r := newRig(t, pool.Config{Size: 1, QuietMax: 300 * time.Millisecond}, &driver{})
	r.eventually("full", func() bool { return r.pool.Ready() == 1 })
	r.busy.Store(true)
	began := time.Now()
	r.claim()
	r.eventually("full again", func() bool { return r.pool.Ready() == 1 })
	if d := time.Since(began); d < 250*time.Millisecond {
		t.Errorf("refilled after %s, amid moves", d)
	}
}

func TestClaimsAreServedAmidMoves(t *testing.T) {
	r := newRig(t, pool.Config{QuietMax: time.Hour}, &driver{})
	r.busy.Store(true)
	r.claim()
}

func TestBootsThatFailBackOffAndAreTold(t *testing.T) {
	r := newRig(t, pool.Config{Size: 1}, &driver{fail: errs.New(errs.Exhausted, "full")})
	r.eventually("trouble", func() bool { return r.pool.Trouble() != nil })
	if _, err := r.pool.Claim(t.Context()); !errs.Is(err, errs.Exhausted) {
		t.Fatalf("claim: %v", err)
	}
	if n := r.starts(); n > 3 {
		t.Errorf("%d starts at once", n)
	}
	if known, _ := r.registry.All(); len(known) != 0 {
		t.Errorf("the registry still has %v", known)
	}
}

func TestVMThatNeverAnswersIsRemoved(t *testing.T) {
	r := newRig(t, pool.Config{BootTimeout: 50 * time.Millisecond}, &driver{mute: true})
	if _, err := r.pool.Claim(t.Context()); !errs.Is(err, errs.Unavailable) {
		t.Fatalf("claim: %v", err)
	}
	r.driver.mu.Lock()
	defer r.driver.mu.Unlock()
	if len(r.driver.vms) != 0 {
		t.Fatal("it is still there")
	}
}

func TestDeadVMsAreNotGivenOut(t *testing.T) {
	r := newRig(t, pool.Config{Size: 1}, &driver{})
	r.eventually("full", func() bool { return r.pool.Ready() == 1 })
	dead := r.pool.List()[0]
	_ = dead.Kill(t.Context())
	if vm := r.claim(); vm.ID() == dead.ID() {
		t.Fatal("a VM that had ended was given out")
	}
}

func TestClaimThatIsGivenUpLeavesTheVMToThePool(t *testing.T) {
	r := newRig(t, pool.Config{Size: 1, QuietMax: time.Hour}, &driver{delay: 30 * time.Millisecond})
	r.eventually("full", func() bool { return r.pool.Ready() == 1 })
	r.busy.Store(true) // no refill but for who waits
	r.claim()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := r.pool.Claim(ctx); !errs.Is(err, errs.Unavailable) {
		t.Fatalf("claim: %v", err)
	}
	r.eventually("the VM is ready", func() bool { return r.pool.Ready() == 1 })
}
