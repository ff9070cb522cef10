package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// fakeHost is a host whose VMs are goroutines with a platform of their own (fakeguest_test.go),
// which attaches real disks through the worker's real gateway. It outlives workers, as a host does.
type fakeHost struct {
	t     *testing.T
	store blob.Store

	mu       sync.Mutex
	vms      map[fleet.VMID]*fakeVM
	gateways map[string]string // link → address, the same for good
	links    map[fleet.MachineID]fleet.MachineLink
	peers    []fleet.Peer
	started  int
	tried    int // acceleration
	failBoot error
	// fault is called with each request to a platform; it may block, or kill the VM.
	fault   func(vm *fakeVM, r *http.Request)
	look    <-chan struct{} // nil: nothing to wait for
	removal func()          // before the next VM is removed; nil: nothing
}

func newFakeHost(t *testing.T, store blob.Store) *fakeHost {
	h := &fakeHost{
		t: t, store: store,
		vms: map[fleet.VMID]*fakeVM{}, gateways: map[string]string{},
		links: map[fleet.MachineID]fleet.MachineLink{},
	}
	t.Cleanup(func() {
		for _, vm := range h.all() {
			vm.kill("the test is over")
		}
	})
	return h
}

func (h *fakeHost) Name() string                { return "sandbox" }
func (h *fakeHost) Probe(context.Context) error { return nil }

// Acceleration fails once, as under load.
func (h *fakeHost) Acceleration(_ context.Context, release string) (fleet.Acceleration, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tried++
	if h.tried == 1 {
		return fleet.Acceleration{}, errs.New(errs.Unavailable, "no time for it")
	}
	return fleet.Acceleration{Kind: "tcg", Reason: "of " + release}, nil
}

func (h *fakeHost) Start(_ context.Context, spec runtime.Spec) (runtime.VM, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failBoot != nil {
		return nil, h.failBoot
	}
	h.started++
	vm := &fakeVM{host: h, id: spec.ID, done: make(chan struct{}), listener: newPipeListener(),
		changed: make(chan struct{})}
	if err := json.Unmarshal(spec.Boot, &vm.boot); err != nil {
		return nil, err
	}
	vm.ctx, vm.end = context.WithCancel(context.Background())
	vm.health = guestapi.Health{VM: spec.ID, State: guestapi.StateEmpty, Version: "test",
		Timeline: map[guestapi.State]time.Time{}}
	vm.serve()
	h.vms[spec.ID] = vm
	return vm, nil
}

// beforeAdopt has the next worker look for VMs no sooner than look is closed.
func (h *fakeHost) beforeAdopt(look <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.look = look
}

func (h *fakeHost) Adopt(ctx context.Context) ([]runtime.VM, error) {
	h.mu.Lock()
	look := h.look
	h.mu.Unlock()
	if look != nil {
		select {
		case <-look:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	var out []runtime.VM
	for _, vm := range h.all() {
		out = append(out, vm)
	}
	return out, nil
}

func (h *fakeHost) all() []*fakeVM {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []*fakeVM
	for _, vm := range h.vms {
		out = append(out, vm)
	}
	return out
}

func (h *fakeHost) boots() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.started
}

// bound returns the VMs that were told to be a machine.
func (h *fakeHost) bound() []*fakeVM {
	var out []*fakeVM
	for _, vm := range h.all() {
		if vm.generation() != 0 {
			out = append(out, vm)
		}
	}
	return out
}

func (h *fakeHost) setFault(f func(vm *fakeVM, r *http.Request)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fault = f
}

// setRemoval has the next removal of a VM begin with f.
func (h *fakeHost) setRemoval(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.removal = f
}

// gatewayOf is where a VM's gateway listens.
func (h *fakeHost) gatewayOf(vm *fakeVM) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.gateways[vm.HostLink()]
}

// listenGateway opens a link's gateway; on the same port each time, as on a real link.
func (h *fakeHost) listenGateway(_ context.Context, link string) (net.Listener, error) {
	h.mu.Lock()
	address := h.gateways[link]
	h.mu.Unlock()
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err, "listen")
	}
	h.mu.Lock()
	h.gateways[link] = l.Addr().String()
	h.mu.Unlock()
	return l, nil
}

// The host's network.

func (h *fakeHost) AddMachine(_ context.Context, l fleet.MachineLink) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.links[l.Machine] = l
	return nil
}

func (h *fakeHost) RemoveMachine(_ context.Context, id fleet.MachineID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.links, id)
	return nil
}

func (h *fakeHost) SyncPeers(_ context.Context, _ []uint32, peers []fleet.Peer) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.peers = peers
	return nil
}

func (h *fakeHost) Intact() bool { return true }

func (h *fakeHost) Wire() fleet.Wire { return fleet.Wire{} }

func (h *fakeHost) RenewTunnel(context.Context, time.Duration) (bool, error) { return false, nil }

func (h *fakeHost) TunnelOffered(context.Context, fleet.TunnelEnd) error { return nil }

func (h *fakeHost) Restore(_ context.Context, links []fleet.MachineLink) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.links = map[fleet.MachineID]fleet.MachineLink{}
	for _, l := range links {
		h.links[l.Machine] = l
	}
	return nil
}

func (h *fakeHost) linkOf(id fleet.MachineID) (fleet.MachineLink, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l, ok := h.links[id]
	return l, ok
}

// fakeVM is one VM.
type fakeVM struct {
	host     *fakeHost
	id       fleet.VMID
	boot     guestapi.Boot
	listener *pipeListener
	done     chan struct{}
	ctx      context.Context
	end      context.CancelFunc

	mu      sync.Mutex
	exit    string
	ended   bool
	health  guestapi.Health
	changed chan struct{}
	guestState
}

func (v *fakeVM) ID() fleet.VMID               { return v.id }
func (v *fakeVM) HostLink() string             { return "vm" + string(v.id) }
func (v *fakeVM) Freeze(context.Context) error { return nil }
func (v *fakeVM) Thaw(context.Context) error   { return nil }
func (v *fakeVM) Done() <-chan struct{}        { return v.done }
func (v *fakeVM) ConsolePath() string {
	return filepath.Join("/nonexistent", string(v.id))
}
func (v *fakeVM) SetLimits(context.Context, fleet.Resources) error { return nil }
func (v *fakeVM) Kill(context.Context) error                       { v.kill("killed"); return nil }
func (v *fakeVM) Dial(ctx context.Context) (net.Conn, error)       { return v.listener.dial(ctx) }

func (v *fakeVM) Status() runtime.Status {
	v.mu.Lock()
	defer v.mu.Unlock()
	return runtime.Status{Running: !v.ended, Exit: v.exit}
}

func (v *fakeVM) Remove(context.Context) error {
	v.host.mu.Lock()
	removal := v.host.removal
	v.host.removal = nil
	v.host.mu.Unlock()
	if removal != nil {
		removal()
	}
	v.kill("removed")
	v.host.mu.Lock()
	defer v.host.mu.Unlock()
	delete(v.host.vms, v.id)
	return nil
}

// kill ends the VM as a host would: nothing in it gets to say or write another thing.
func (v *fakeVM) kill(exit string) {
	v.mu.Lock()
	if v.ended {
		v.mu.Unlock()
		<-v.done
		return
	}
	v.ended, v.exit = true, exit
	d := v.disk
	v.mu.Unlock()
	_ = v.listener.Close()
	_ = v.server.Close()
	v.end()
	if d != nil {
		d.Abandon()
	}
	v.running.Wait()
	close(v.done)
}

// pipeListener is a network between this process and itself.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "vm", Net: "unix"} }

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.closed:
	case <-ctx.Done():
	}
	_ = here.Close()
	_ = there.Close()
	return nil, errs.Wrap(errs.Unavailable, errors.Join(ctx.Err(), net.ErrClosed), "dial")
}

func is(r *http.Request, path string) bool { return strings.HasPrefix(r.URL.Path, path) }
