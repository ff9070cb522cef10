package control_test

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/control"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/seal"
	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/state/memstate"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// fixture is a control plane on an in-memory state with workers that do at once what they are told.
// What goes wrong is the simulation's business (test/sim); here each operation is followed through
// once.
type fixture struct {
	ended  endedMoves
	t      *testing.T
	store  state.Store
	policy fleet.Policy
	disks  *memDisks
	keys   *seal.Keyring // nil: the fleet has none
	c      *control.Control
	newest atomic.Pointer[control.Control] // c, for the workers
	stop   func()                          // ends the server
}

func newFixture(t *testing.T, workers ...string) *fixture {
	return newFixtureOn(t, memstate.New(memstate.Config{}), workers...)
}

func newFixtureOn(t *testing.T, store state.Store, workers ...string) *fixture {
	f := &fixture{t: t, store: store, disks: &memDisks{docs: map[string][]byte{},
		keys: map[string]string{}}}
	f.policy = fleet.Policy{WorkerSuspect: time.Second, WorkerDown: 2 * time.Second,
		StartTimeout: 2 * time.Second}
	f.serve()
	for _, w := range workers {
		f.worker(w)
	}
	if _, err := f.c.CreateImage(t.Context(), "base", 1<<30, nil); err != nil {
		t.Fatal(err)
	}
	return f
}

// serve starts a server on the fixture's state, in place of the one before.
func (f *fixture) serve() {
	f.t.Helper()
	c, err := control.New(control.Config{FleetID: "f1", StoreURL: "mem://pool", Policy: f.policy,
		Tick: 20 * time.Millisecond}, control.Deps{
		Store: f.store, Disks: f.disks, Images: memImages{}, Log: slog.New(slog.DiscardHandler),
		Keys:      f.keys,
		MoveEnded: f.ended.add})
	if err != nil {
		f.t.Fatal(err)
	}
	if f.stop != nil {
		f.stop()
	}
	ctx, cancel := context.WithCancel(f.t.Context())
	var g errgroup.Group
	g.Go(func() error { return c.Run(ctx) })
	f.newest.Store(c)
	f.c, f.stop = c, func() {
		cancel()
		if err := g.Wait(); err != nil {
			f.t.Errorf("run: %v", err)
		}
	}
	f.t.Cleanup(f.stop)
	f.eventually("the state is read", func() bool { _, err := c.Workers(ctx); return err == nil })
}

// eventually waits for a condition, by the control plane's own notice of changes.
func (f *fixture) eventually(what string, ok func() bool) {
	f.t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			f.t.Fatalf("not within 10 s: %s", what)
		case <-tick.C:
		}
	}
}

func (f *fixture) machine(ref string) fleet.MachineView {
	f.t.Helper()
	v, err := f.c.Machine(f.t.Context(), ref)
	if err != nil {
		f.t.Fatal(err)
	}
	return v
}

func (f *fixture) create(name, network string) fleet.MachineView {
	f.t.Helper()
	v, err := f.c.CreateMachine(f.t.Context(), request(name, network))
	if err != nil {
		f.t.Fatal(err)
	}
	f.eventually(name+" is started",
		func() bool { return f.machine(name).Machine.State == fleet.MachineStarted })
	return f.machine(string(v.Machine.ID))
}

func request(name, network string) fleet.CreateMachine {
	return fleet.CreateMachine{Name: fleet.MachineName(name), App: "app",
		Network: fleet.NetworkName(network),
		Config: fleet.MachineConfig{Image: "base",
			Resources: fleet.Resources{CPUMillis: 1000, MemoryMiB: 256}}}
}

// obedient is a worker that does what it is told, at once.
type obedient struct {
	f    *fixture
	id   fleet.WorkerID
	boot string

	mu       sync.Mutex
	vms      map[fleet.MachineID]fleet.VMReport
	broken   map[fleet.MachineID]bool // machines that it can't start
	silent   bool
	holds    bool   // doesn't release anything yet
	boots    bool   // has no VM ready: it is still booting one
	unclean  string // how it releases machines, if not cleanly
	bootless string // why it can't boot any; "": it can
	stall    *fleet.DiskStall
	all      bool // starts of whatever machine go on and on
	further  bool // and get further, with each report
	steps    int64
	pressure *fleet.Pressure
	oom      *fleet.OOMReport
	mute     time.Time // since when its platforms are
	restarts *fleet.PlatformReport
	services []fleet.ServiceReport
	seq      int64
	seen     int64
	again    bool // take the newest set once more
}

func (f *fixture) worker(name string) *obedient {
	f.t.Helper()
	w := &obedient{f: f, id: fleet.WorkerID(name), boot: "b1",
		vms:    map[fleet.MachineID]fleet.VMReport{},
		broken: map[fleet.MachineID]bool{}}
	if err := w.join(netip.MustParseAddr("fd00::" + name[1:])); err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(f.t.Context())
	var g errgroup.Group
	g.Go(func() error { return w.run(ctx) })
	f.t.Cleanup(func() { cancel(); _ = g.Wait() })
	return w
}

func (w *obedient) join(address netip.Addr) error {
	_, err := w.f.newest.Load().Join(w.f.t.Context(),
		fleet.JoinRequest{Worker: w.id, Address: address,
			APIURL:   "https://[" + address.String() + "]:7600",
			Capacity: fleet.Resources{CPUMillis: 4000, MemoryMiB: 1024}, Runtime: "sandbox"})
	return err
}

func (w *obedient) run(ctx context.Context) error {
	var after int64
	for ctx.Err() == nil {
		w.mu.Lock()
		silent := w.silent
		w.mu.Unlock()
		if silent {
			if !wait(ctx, 5*time.Millisecond) {
				return nil
			}
			continue
		}
		w.mu.Lock()
		if w.again {
			after, w.again = 0, false
		}
		w.mu.Unlock()
		poll, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		set, err := w.f.newest.Load().Assignments(poll, w.id, after)
		cancel()
		if err == nil {
			after = set.Revision
			w.obey(set)
		}
		if err := w.report(ctx); err != nil && !wait(ctx, 5*time.Millisecond) {
			return nil
		}
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (w *obedient) obey(set fleet.AssignmentSet) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = set.Revision
	told := map[fleet.MachineID]bool{}
	for _, a := range set.Assignments {
		told[a.Machine] = true
		v := fleet.VMReport{Machine: a.Machine, Generation: a.Generation, Instance: a.Instance,
			HasVM: true, Phase: fleet.PhaseHealthy, Stall: w.stall, OOM: w.oom, SilentSince: w.mute,
			Platform: w.restarts, Services: w.services}
		switch {
		case a.Want == fleet.WantDiscarded:
			delete(w.vms, a.Machine)
			continue
		case a.Want == fleet.WantReleased && w.holds:
			v.Phase = fleet.PhaseStopping
		case a.Want == fleet.WantReleased:
			v.Phase, v.HasVM, v.Error = fleet.PhaseReleased, false, w.unclean
		case a.Want == fleet.WantPrepared && w.bootless != "":
			v.Phase, v.HasVM, v.Error, v.ErrorKind = fleet.PhaseFailed, false, w.bootless,
				string(errs.Unavailable)
		case a.Want == fleet.WantPrepared && w.boots:
			v.Phase, v.HasVM = fleet.PhasePreparing, false
		case a.Want == fleet.WantPrepared:
			v.Phase = fleet.PhasePrepared
		case a.Want == fleet.WantRunning && w.all:
			v.Phase = fleet.PhaseStarting
		case w.broken[a.Machine]:
			v.Phase, v.HasVM, v.Error, v.ErrorKind = fleet.PhaseFailed, false, "no such command",
				string(errs.Internal)
		}
		w.vms[a.Machine] = v
	}
	maps.DeleteFunc(w.vms, func(id fleet.MachineID, v fleet.VMReport) bool {
		return !told[id] &&
			v.Phase == fleet.PhaseReleased
	})
}

func (w *obedient) report(ctx context.Context) error {
	w.mu.Lock()
	w.seq++
	r := fleet.WorkerReport{Worker: w.id, Boot: w.boot, Sequence: w.seq, Seen: w.seen,
		VMs: slices.Collect(maps.Values(w.vms)), Pressure: w.pressure}
	if w.further {
		w.steps++
	}
	for i := range r.VMs {
		r.VMs[i].Progress = w.steps
	}
	w.mu.Unlock()
	return w.f.newest.Load().Report(ctx, r)
}

// memDisks remembers which disks there are.
type memDisks struct {
	mu   sync.Mutex
	docs map[string][]byte
	keys map[string]string // ids of keys by the disk's URL
	fail error
}

func (d *memDisks) ForkImage(_ context.Context, _ fleet.Image, url string, _ int64,
	key disk.KEK) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	d.docs[url] = nil
	if key != nil {
		d.keys[url] = key.ID()
	}
	return nil
}

func (d *memDisks) Rekey(_ context.Context, url string, _, next disk.KEK) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	d.keys[url] = next.ID()
	return nil
}

func (d *memDisks) WriteOwner(_ context.Context, url string, doc []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.docs[url] = doc
	return nil
}

func (d *memDisks) Destroy(_ context.Context, url string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.docs, url)
	return nil
}

func (d *memDisks) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.docs)
}

type memImages struct{}

func (memImages) Build(_ context.Context, name fleet.ImageName, size int64,
	_ io.Reader) (fleet.Image, error) {
	return fleet.Image{Name: name, DiskURL: "mem://pool/disks/img-" + string(name),
		Checkpoint: "base", SizeBytes: size}, nil
}

// set changes the worker, which then looks at its newest assignments once more.
func (w *obedient) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	w.again = true
}
