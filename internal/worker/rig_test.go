package worker_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/internal/identity/identitytest"
	"github.com/sluice-platform/sluice/internal/worker"
	"github.com/sluice-platform/sluice/internal/worker/metrics"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/expose"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	storeURL = "s3://bucket/fleet?region=x"
	m1       = fleet.MachineID("0100000000000a")
)

// fakeFeed is a control plane that says what a test wants.
type fakeFeed struct {
	mu      sync.Mutex
	set     fleet.AssignmentSet
	changed chan struct{}
	reports []fleet.WorkerReport
	down    bool
	joins   int
	unknown bool // it has forgotten the worker
	posting int
	overlap bool // two posts at once were seen
}

func newFakeFeed() *fakeFeed { return &fakeFeed{changed: make(chan struct{})} }

func (f *fakeFeed) Join(context.Context, fleet.JoinRequest) (fleet.JoinAnswer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return fleet.JoinAnswer{}, errs.New(errs.Unavailable, "down")
	}
	f.joins++
	f.unknown = false
	return fleet.JoinAnswer{Number: 1, StoreURL: storeURL, FleetID: "fleet"}, nil
}

func (f *fakeFeed) Assignments(ctx context.Context, w fleet.WorkerID,
	after int64) (fleet.AssignmentSet, error) {
	for {
		f.mu.Lock()
		set, changed, down, unknown := f.set, f.changed, f.down, f.unknown
		f.mu.Unlock()
		set.Worker = w
		switch {
		case down:
			return set, errs.New(errs.Unavailable, "down")
		case unknown:
			return set, errs.New(errs.NotFound, "no such worker")
		case set.Revision != after:
			return set, nil
		}
		select {
		case <-ctx.Done():
			return set, errs.Wrap(errs.Unavailable, ctx.Err(), "poll")
		case <-changed:
		}
	}
}

func (f *fakeFeed) Report(_ context.Context, r fleet.WorkerReport) error {
	f.mu.Lock()
	f.posting++
	f.overlap = f.overlap || f.posting > 1
	f.mu.Unlock()
	time.Sleep(200 * time.Microsecond) // so that an overlap would be seen
	f.mu.Lock()
	defer f.mu.Unlock()
	f.posting--
	switch {
	case f.down:
		return errs.New(errs.Unavailable, "down")
	case f.unknown:
		return errs.New(errs.NotFound, "no such worker")
	}
	f.reports = append(f.reports, r)
	close(f.changed)
	f.changed = make(chan struct{})
	return nil
}

// assign replaces the whole set.
func (f *fakeFeed) assign(as ...fleet.Assignment) int64 { return f.assignWith(nil, as...) }

// assignWith replaces the whole set, and what is private.
func (f *fakeFeed) assignWith(private map[fleet.MachineID]fleet.Private,
	as ...fleet.Assignment) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set.Private = private
	f.set.Assignments = slices.Clone(as)
	f.set.Revision++
	close(f.changed)
	f.changed = make(chan struct{})
	return f.set.Revision
}

// name has the server name a version of the fleet's authority.
func (f *fakeFeed) name(authority string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set.Authority = authority
	f.set.Revision++
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fakeFeed) revision() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.set.Revision
}

func (f *fakeFeed) setDown(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fakeFeed) last() fleet.WorkerReport {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.reports) == 0 {
		return fleet.WorkerReport{}
	}
	return f.reports[len(f.reports)-1]
}

func (f *fakeFeed) all() []fleet.WorkerReport {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.reports)
}

func (f *fakeFeed) vm(id fleet.MachineID) *fleet.VMReport {
	for _, v := range f.last().VMs {
		if v.Machine == id {
			return &v
		}
	}
	return nil
}

// unrenewed is an identity that is not to be renewed in a test.
type unrenewed struct{ *identity.Held }

func (unrenewed) Renew(context.Context) error { return errs.New(errs.Internal, "not expected") }

// rig is a host, a store, a control plane, and a worker that can be ended and started again.
type rig struct {
	pressure atomic.Pointer[fleet.Pressure] // nil: none
	t        *testing.T
	store    blob.Store
	host     *fakeHost
	feed     *fakeFeed
	cfg      worker.Config
	api      string
	ca       *identity.Authority
	identity worker.Identity
	keys     worker.StoreKeys // of the store; nil: it needs none
	tls      *tls.Config
	stop     func() // ends the worker
}

func newRig(t *testing.T, pool int, change ...func(*worker.Config)) *rig {
	t.Helper()
	store := memblob.New()
	r := &rig{t: t, store: store, host: newFakeHost(t, store), feed: newFakeFeed(), stop: func() {}}
	r.ca = identitytest.Authority(t, nil)
	held := identitytest.Worker(t, r.ca, "w1", 1)
	r.identity, r.tls = unrenewed{held}, identity.ServerConfig(held)
	r.cfg = worker.Config{
		Worker: "w1", DataDir: t.TempDir(), Address: netip.MustParseAddr("fd00::1"),
		APIURL:   "http://[fd00::1]:7600",
		Capacity: fleet.Resources{CPUMillis: 4000, MemoryMiB: 4096},
		Version:  "test", Release: "r1", ReleaseDir: "/release", Pool: pool,
		Heartbeat: 100 * time.Millisecond, PoolQuiet: 5 * time.Millisecond,
		BootTimeout: 3 * time.Second, StepTimeout: 2 * time.Second, CloseGrace: 2 * time.Second,
	}
	for _, c := range change {
		c(&r.cfg)
	}
	if _, err := disk.Create(t.Context(), store, "fleet-is-the-pool",
		disk.CreateOptions{Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.stop() })
	return r
}

func (r *rig) newDisk(id fleet.MachineID) {
	r.t.Helper()
	if _, err := disk.Create(r.t.Context(), r.store, "disks/"+string(id),
		disk.CreateOptions{Size: 1 << 20}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) head(id fleet.MachineID) *format.Head {
	r.t.Helper()
	o, err := r.store.Get(context.Background(), "disks/"+string(id)+"/head", blob.All())
	if err != nil {
		r.t.Fatal(err)
	}
	h, err := format.DecodeHead(o.Data)
	if err != nil {
		r.t.Fatal(err)
	}
	return h
}

// start runs a worker on the rig's data directory.
func (r *rig) start() {
	r.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.api = "https://" + listener.Addr().String()
	level := slog.LevelError
	if os.Getenv("SLUICE_TEST_LOG") != "" {
		level = slog.LevelDebug
	}
	reg := expose.NewRegistry("worker", "test")
	w, err := worker.New(r.cfg, worker.Deps{
		Metrics: metrics.New(reg), Exposition: expose.Handler(reg, slog.New(slog.DiscardHandler)),
		Pressure: func() (fleet.Pressure, error) { // whatever else this host does
			if p := r.pressure.Load(); p != nil {
				return *p, nil
			}
			return fleet.Pressure{}, nil
		},
		Driver: r.host, HostNet: r.host, Server: r.feed, Listener: tls.NewListener(listener, r.tls),
		Identity:      r.identity,
		StoreKeys:     r.keys,
		ListenGateway: r.host.listenGateway,
		OpenStore:     func(context.Context, string) (blob.Store, error) { return r.store, nil },
		Logger:        slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- w.Run(ctx) }()
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-over:
				if err != nil {
					r.t.Errorf("worker ended with %v", err)
				}
			case <-time.After(2 * time.Minute):
				r.t.Error("worker did not end")
			}
		})
	}
}

func (r *rig) restart() {
	r.t.Helper()
	r.stop()
	r.start()
}

func assignment(id fleet.MachineID, g fleet.Generation, want fleet.Want) fleet.Assignment {
	return fleet.Assignment{
		Machine: id, Generation: g, Want: want, Instance: fleet.InstanceID(fmt.Sprintf("i%d", g)),
		Name: "web", App: "shop", Network: "front", NetworkID: 7,
		Address: fleet.PrivateAddress(7, 1, 2),
		Disk:    fleet.StoreDisk("s3://bucket/fleet/disks/" + string(id)),
		Config: fleet.MachineConfig{
			Resources: fleet.Resources{CPUMillis: 500, MemoryMiB: 256},
			Stop:      fleet.StopConfig{Timeout: 50 * time.Millisecond},
		},
	}
}

// eventually waits until ok, for at most 2 min.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: not within 2 min; last report: %+v", what, r.feed.last())
		}
		time.Sleep(time.Millisecond)
	}
}

// awaitPhase waits until a machine is reported at a generation in a phase.
func (r *rig) awaitPhase(id fleet.MachineID, g fleet.Generation, p fleet.Phase) fleet.VMReport {
	r.t.Helper()
	var got fleet.VMReport
	r.eventually(fmt.Sprintf("machine %s at generation %d reported %s", id, g, p), func() bool {
		v := r.feed.vm(id)
		if v != nil {
			got = *v
		}
		return v != nil && v.Generation == g && v.Phase == p
	})
	return got
}

func (r *rig) awaitGone(id fleet.MachineID) {
	r.t.Helper()
	r.eventually(fmt.Sprintf("machine %s has no VM", id), func() bool {
		v := r.feed.vm(id)
		return (v == nil || !v.HasVM) && len(r.host.bound()) == 0
	})
}
