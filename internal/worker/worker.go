package worker

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/gatewayhttp"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/worker/pool"
	"github.com/sluice-platform/sluice/internal/x/atomicfile"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Worker is the daemon of one host.
type Worker struct {
	cfg        Config
	deps       Deps
	log        *slog.Logger
	records    *recordStore
	registry   *pool.Registry
	pool       *pool.Pool
	conditions *conditions
	flushes    flushTotal
	memory     *gatewayhttp.Budget // of all VMs' gateways, as codec is
	codec      func() (*format.Codec, error)
	boot       string        // this process's id in reports
	dirty      chan struct{} // something changed that should be reported

	// Set by Run before anything that uses them is started.
	store     blob.Store
	storeURL  string
	fleetID   string
	group     *errgroup.Group
	actorsCtx context.Context // of the group; actors outlive a failed uplink

	reportFailed bool // owned by reportLoop
	seen         atomic.Int64
	joined       atomic.Bool // since this process was started
	adopted      atomic.Bool // what earlier workers left is in machines
	acceleration atomic.Pointer[fleet.Acceleration]
	pressure     atomic.Pointer[fleet.Pressure] // nil: not known

	mu       sync.Mutex // never held over I/O; taken before a machine's
	machines map[fleet.MachineID]*machine
	revision int64 // of the set that was handed out last
	sequence int64
	set      fleet.AssignmentSet // newest
	netWake  chan struct{}
	wanted   wantedAuthority
	redialed context.CancelFunc // cuts the present long poll; nil: there is none
}

// New returns a worker that works once Run is called, and makes its data directory. Invalid: the
// configuration can't work.
func New(cfg Config, deps Deps) (*Worker, error) {
	cfg.setDefaults()
	if err := errors.Join(cfg.validate(), deps.validate()); err != nil {
		return nil, err
	}
	w := &Worker{
		cfg: cfg, deps: deps, log: deps.Logger.With("worker_id", string(cfg.Worker)),
		boot:     pool.NewToken(8),
		memory:   gatewayhttp.NewBudget(cfg.GatewayBytes),
		codec:    sync.OnceValues(format.NewCodec),
		dirty:    make(chan struct{}, 1),
		netWake:  make(chan struct{}, 1),
		wanted:   wantedAuthority{wake: make(chan struct{}, 1)},
		machines: map[fleet.MachineID]*machine{},
	}
	w.conditions = newConditions(w.now, w.changed)
	var err error
	if w.records, err = openRecords(filepath.Join(cfg.DataDir, "machines")); err != nil {
		return nil, err
	}
	if w.registry, err = pool.OpenRegistry(filepath.Join(cfg.DataDir, "vms")); err != nil {
		return nil, err
	}
	w.pool = pool.New(pool.Config{
		Size: cfg.Pool, Quiet: cfg.PoolQuiet, BootTimeout: cfg.BootTimeout,
		Release: cfg.Release, ReleaseDir: cfg.ReleaseDir, CacheBytes: cfg.CacheBytes,
		Limits: fleet.Resources{MemoryMiB: cfg.Overhead.MemoryMiB}, FrontEnd: cfg.FrontEnd,
	}, pool.Deps{
		Driver: deps.Driver, Registry: w.registry, Logger: w.log, Now: w.now, Busy: w.busy,
		Changed: w.changed, Share: w.share,
		Booted: deps.Metrics.Booted,
	})
	return w, deps.Metrics.Watch(w.figures)
}

// Run works until ctx ends, and returns when its goroutines are gone. VMs go on without it, and the
// next Run on the same data directory finds them again.
func (w *Worker) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return w.serve(ctx) })
	group.Go(func() error {
		if err := w.work(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		return nil
	})
	return group.Wait()
}

func (w *Worker) work(ctx context.Context) error {
	answer, joined, err := w.recallOrJoin(ctx)
	if err != nil {
		return err
	}
	store, err := w.openStore(ctx, answer.StoreURL)
	if err != nil {
		return err
	}
	defer store.Close()
	w.store, w.storeURL, w.fleetID = &watchedStore{Store: store, conditions: w.conditions},
		answer.StoreURL, answer.FleetID
	group, ctx := errgroup.WithContext(ctx)
	w.group, w.actorsCtx = group, ctx
	group.Go(func() error { return w.findAcceleration(ctx) })
	group.Go(func() error { return w.pressureLoop(ctx) })
	group.Go(func() error { return w.deps.StoreKeys.Run(ctx) })
	group.Go(func() error {
		if err := w.adopt(ctx); err != nil {
			return err
		}
		group.Go(func() error { return w.pool.Run(ctx) })
		group.Go(func() error { return w.netLoop(ctx) })
		group.Go(func() error { return w.probeLoop(ctx) })
		group.Go(func() error { return w.renewLoop(ctx) })
		return w.uplink(ctx, joined)
	})
	return group.Wait()
}

// openStore opens the pool of disks, and retries while the store is unreachable.
func (w *Worker) openStore(ctx context.Context, url string) (blob.Store, error) {
	wait := backoff.New(100*time.Millisecond, 5*time.Second)
	for {
		store, err := w.deps.OpenStore(ctx, url)
		if err == nil {
			w.conditions.set(fleet.ConditionStoreUnreachable, nil)
			return store, nil
		}
		if !errs.Is(err, errs.Unavailable) || ctx.Err() != nil {
			return nil, errs.Wrap(errs.KindOf(err), err, "open the fleet's store")
		}
		w.conditions.set(fleet.ConditionStoreUnreachable, err)
		w.log.WarnContext(ctx, "store can not be opened", "error", err)
		sleep(ctx, wait.Next())
	}
}

const joinFile = "join.json"

// recallOrJoin returns the server's answer to this worker's join: the remembered one if there is
// one, so that a worker can restart without a control plane. joined: the answer is fresh.
func (w *Worker) recallOrJoin(ctx context.Context) (a fleet.JoinAnswer, joined bool, err error) {
	b, err := os.ReadFile(filepath.Join(w.cfg.DataDir, joinFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		a, err = w.join(ctx)
		return a, true, err
	case err != nil:
		return a, false, errs.Wrap(errs.Internal, err,
			"read what the server answered to the last join")
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, false, errs.Wrap(errs.Corrupt, err,
			"read what the server answered to the last join").
			WithRemedy("remove %s", filepath.Join(w.cfg.DataDir, joinFile))
	}
	return a, false, nil
}

// join introduces the worker, trying until the server answers.
func (w *Worker) join(ctx context.Context) (fleet.JoinAnswer, error) {
	wait := backoff.New(50*time.Millisecond, 2*time.Second)
	for {
		tunnel := w.deps.HostNet.Wire().Tunnel
		a, err := w.deps.Server.Join(ctx, fleet.JoinRequest{
			Worker: w.cfg.Worker, Address: w.cfg.Address, APIURL: w.cfg.APIURL,
			Capacity: w.cfg.Capacity,
			Runtime:  w.deps.Driver.Name(), Version: w.cfg.Version, Release: w.cfg.Release,
			Labels: w.cfg.Labels, Tunnel: tunnel,
		})
		switch {
		case err == nil:
			w.joined.Store(true)
			if err := w.deps.HostNet.TunnelOffered(ctx, tunnel); err != nil {
				return a, err
			}
			return a, w.remember(a)
		case ctx.Err() != nil:
			return a, ctx.Err()
		case !errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.Internal) &&
			!errs.Is(err, errs.Conflict):
			return a, joinRefused(err)
		}
		w.log.WarnContext(ctx, "the server does not answer the join", "error", err)
		sleep(ctx, wait.Next())
	}
}

// joinRefused adds to a refused join what the worker's operator can do about it.
func joinRefused(err error) error {
	wrapped := errs.Wrap(errs.KindOf(err), err, "join the fleet")
	if errs.Is(err, errs.Denied) {
		if remedy := errs.RemedyOf(err); remedy != "" {
			return wrapped.WithRemedy("%s", remedy)
		}
		return wrapped.WithRemedy("join anew: sluice worker token create --name NAME")
	}
	return wrapped
}

// remember saves a join's answer. Conflict if it is of another fleet, because this worker's VMs
// belong to the first.
func (w *Worker) remember(a fleet.JoinAnswer) error {
	if w.fleetID != "" && a.FleetID != w.fleetID {
		return errs.New(errs.Conflict,
			"worker %s belongs to fleet %s, and the server is of fleet %s", w.cfg.Worker,
			w.fleetID, a.FleetID).
			WithRemedy("give the worker an empty data directory to make it join another fleet")
	}
	if w.storeURL != "" && a.StoreURL != w.storeURL {
		w.log.Warn("the fleet's store has another URL now; it is used after a restart", "store_url",
			strings.SplitN(a.StoreURL, "?", 2)[0])
	}
	b, err := json.Marshal(a)
	if err != nil {
		return errs.Wrap(errs.Internal, err, "encode the join's answer")
	}
	return atomicfile.Write(filepath.Join(w.cfg.DataDir, joinFile), b, 0o600)
}

func (w *Worker) now() time.Time { return w.deps.Now() }

// changed asks for a report.
func (w *Worker) changed() {
	select {
	case w.dirty <- struct{}{}:
	default:
	}
}

// busy reports whether any machine is being started or stopped.
func (w *Worker) busy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.machines {
		if m.isBusy() {
			return true
		}
	}
	return false
}

func (w *Worker) listenOn(link string) func(context.Context) (net.Listener, error) {
	return func(ctx context.Context) (net.Listener,
		error) {
		return w.deps.ListenGateway(ctx, link)
	}
}

func compareIDs(a, b fleet.MachineID) int { return strings.Compare(string(a), string(b)) }

// sleep waits for d or until ctx ends, which every loop here checks next.
func sleep(ctx context.Context, d time.Duration) { _ = backoff.Sleep(ctx, d) }
