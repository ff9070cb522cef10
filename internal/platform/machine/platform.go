package machine

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/guestapi/diskbroker"
	"github.com/sluice-platform/sluice/internal/platform/blockapi"
	"github.com/sluice-platform/sluice/internal/platform/inner"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/memcg"
)

// Config of platformd.
type Config struct {
	Boot    guestapi.Boot
	Version string
	Dir     string // on the VM's tmpfs; for state and logs
	DiskDir string // where the disk is mounted; made if missing
	Block   *blockapi.Client
	Inner   inner.Config
	Broker  *diskbroker.Client // nil: this VM has a kernel of its own
	// Restarts reports earlier platformds of this VM; nil: there was none.
	Restarts *fleet.PlatformReport
	Log      *slog.Logger
}

// Platform is platformd.
type Platform struct {
	cfg    Config
	log    *slog.Logger
	status *status
	block  *blockapi.Client
	fs     fileSystem

	// container is made while the VM waits; see box.
	container *box
	services  *serviceHolder
	// interrupt cancels a bind, for a release or a failure.
	interrupt *interrupter
	ownKills  *memcg.Counter // of the platform itself
	// killing is set before the container is killed on purpose.
	killing atomic.Bool
}

// New returns a platform in the state that an earlier one of this VM has left.
func New(cfg Config) (*Platform, error) {
	st, err := loadStatus(filepath.Join(cfg.Dir, "platform.json"), cfg)
	if err != nil {
		return nil, err
	}
	own, err := memcg.Of(os.Getpid())
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err, "find the platform's cgroup")
	}
	return &Platform{cfg: cfg, log: cfg.Log, status: st, block: cfg.Block,
			fs: fileSystemAt(cfg.DiskDir, cfg.Broker), container: newBox(),
			services: newServiceHolder(), interrupt: newInterrupter(),
			ownKills: memcg.NewCounter(own, memcg.Beside(own, guestapi.BlockdCgroup))},
		nil
}

func (p *Platform) diskDir() string { return p.cfg.DiskDir }
func (p *Platform) logDir() string  { return filepath.Join(p.cfg.Dir, "logs") }

// Run serves on l until ctx ends. It leaves the machine running, for a later platformd to go on
// with.
func (p *Platform) Run(ctx context.Context, l net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.serve(ctx, l) })
	g.Go(func() error { return p.watchDisk(ctx) })
	g.Go(func() error { return p.watchStall(ctx) })
	g.Go(func() error { return p.watchProgress(ctx) })
	g.Go(func() error { return p.watchContainer(ctx) })
	g.Go(func() error { return p.watchMemory(ctx) })
	g.Go(func() error { return p.showOwn(ctx) })
	g.Go(func() error { return p.drive(ctx) })
	return g.Wait()
}

// drive does what the VM was asked for, one action at a time. Nothing else changes mounts,
// container or disk.
func (p *Platform) drive(ctx context.Context) error {
	var running errgroup.Group // what a bound machine keeps going: services and logs
	defer func() { _ = running.Wait() }()
	p.makeContainer(ctx)
	for ctx.Err() == nil {
		now, changed := p.status.get()
		if act := p.next(now); act != nil {
			if err := act(ctx, &running); err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

// next returns the action that a state asks for, or nil.
func (p *Platform) next(now saved) func(context.Context, *errgroup.Group) error {
	st := now.Health.State
	switch {
	case st == guestapi.StateReleased:
		return nil
	case st.Final():
		if p.services.ended() {
			return nil
		}
		return p.tearDown
	case now.ReleaseAsked:
		return p.release
	case now.Bind != nil && !p.services.started():
		return p.bind
	case now.Prepare != nil && st == guestapi.StateEmpty:
		return p.prepare
	}
	return nil
}

func (p *Platform) prepare(ctx context.Context, _ *errgroup.Group) error {
	now, _ := p.status.get()
	bindable, cancel := p.interrupt.context(ctx)
	defer cancel()
	start := time.Now()
	err := p.awaitBlockd(bindable)
	if err == nil {
		err = p.block.Prepare(bindable, now.Prepare.Store)
	}
	if err != nil {
		// A bind works without it, with a longer pause.
		p.log.WarnContext(ctx, "disk not prepared", "error", err)
	}
	p.took(ctx, guestapi.StepPrepare, "", start)
	return p.status.update(func(s *saved) { reach(s, guestapi.StatePrepared) })
}

// fail ends the machine as failed or fenced, whatever it is doing.
func (p *Platform) fail(ctx context.Context, err error) {
	st := guestapi.StateFailed
	if errs.Is(err, errs.Fenced) {
		st = guestapi.StateFenced
	}
	p.log.ErrorContext(ctx, "machine failed", "state", string(st), "error", err)
	if c := p.container.peek(); c != nil && st == guestapi.StateFenced {
		// At once, before anybody learns of the end: what the machine still sends would repeat what
		// its successor sends.
		p.killing.Store(true)
		if killErr := c.Kill(ctx); killErr != nil {
			p.log.ErrorContext(ctx, "fenced container not killed", "error", killErr)
		}
	}
	if saveErr := p.status.update(func(s *saved) { end(s, st, err) }); saveErr != nil {
		p.log.ErrorContext(ctx, "state not saved", "error", saveErr)
	}
	p.interrupt.now()
}
