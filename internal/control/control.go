package control

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Control is the control plane of one server. Safe for concurrent use.
type Control struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	records *records.Records
	obs     *observer
	fast    *queue // names of records to act on: nothing here waits for the object store
	slow    *queue // machines whose disk is to be made or destroyed

	started time.Time
	ticked  time.Time // the last tick; owned by tick, as is due
	due     time.Time // the next one, if nothing changes before
	// pruneNext is when history is looked through again; owned by the queue's name of the fleet
	pruneNext time.Time
	brake     atomic.Pointer[string]

	feeds sync.Mutex // held while a worker's assignments are derived and kept
	// one at a time makes or destroys a machine's disk
	disks keyLocks[fleet.MachineID]
	// one at a time decides what people ask of a network
	asked   keyLocks[fleet.NetworkName]
	retries retries
	// whom to tell of certificates that are refused
	refusals refusals

	mu      sync.Mutex
	changed chan struct{}
	again   []string // what could not be done, until the next tick
	// why a machine of a lost worker isn't started elsewhere
	waiting map[fleet.MachineID]fleet.Blocker
}

var (
	_ fleet.Machines   = (*Control)(nil)
	_ fleet.Moves      = (*Control)(nil)
	_ fleet.Workers    = (*Control)(nil)
	_ fleet.Drains     = (*Control)(nil)
	_ fleet.Images     = (*Control)(nil)
	_ fleet.Keys       = (*Control)(nil)
	_ fleet.Secrets    = (*Control)(nil)
	_ fleet.Quotas     = (*Control)(nil)
	_ fleet.Status     = (*Control)(nil)
	_ fleet.Changes    = (*Control)(nil)
	_ fleet.WorkerFeed = (*Control)(nil)
	_ fleet.Locator    = (*Control)(nil)
)

// New returns a control plane that has not read anything yet: its methods answer Unavailable until
// Run, or Refresh, has.
func New(cfg Config, deps Deps) (*Control, error) {
	cfg = cfg.withDefaults()
	if len(cfg.Cell) != 2 || !fleet.IsMachineID(cfg.Cell+"000000000000") {
		return nil, errs.New(errs.Invalid, "cell %q isn't two lower-case hex digits", cfg.Cell)
	}
	if deps.Store == nil || deps.Disks == nil || deps.Images == nil || deps.Log == nil {
		return nil, errs.New(errs.Invalid,
			"the control plane needs a store, disks, images and a log")
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.IDs == nil {
		deps.IDs = newRandomIDs()
	}
	now := deps.Now()
	c := &Control{cfg: cfg, deps: deps, log: deps.Log, obs: newObserver(cfg.Policy, now),
		fast: newQueue(), slow: newQueue(), started: now,
		disks: keyLocks[fleet.MachineID]{what: "the disk of machine",
			held: map[fleet.MachineID]chan struct{}{}},
		asked: keyLocks[fleet.NetworkName]{what: "others who ask of network",
			held: map[fleet.NetworkName]chan struct{}{}},
		retries:  retries{of: map[fleet.MachineID]retry{}},
		refusals: refusals{of: map[fleet.WorkerID]map[int64]refusal{}},
		changed:  make(chan struct{}), waiting: map[fleet.MachineID]fleet.Blocker{}}
	c.records = records.New(records.Config{Store: deps.Store, Log: deps.Log, Now: c.now,
		Retry:   cfg.Tick,
		Changed: c.learned, Ended: c.ended})
	return c, nil
}

// Run reads the state, follows it, and acts until ctx ends. It returns once nothing of it runs any
// more; nil if ctx ended, and an error if the state holds a record that can't be read.
func (c *Control) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.records.Follow(ctx) })
	g.Go(func() error { return c.ticks(ctx) })
	g.Go(func() error { return c.collects(ctx) })
	for range c.cfg.Executors {
		g.Go(func() error { return c.execute(ctx, c.fast) })
	}
	for range max(c.cfg.Executors/4, 2) {
		g.Go(func() error { return c.execute(ctx, c.slow) })
	}
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		return err
	} else if err != nil && errs.Is(err, errs.Corrupt) {
		return err
	}
	return nil
}

// Refresh reads the whole state anew. Run does it by itself; a simulation calls it in Run's stead.
func (c *Control) Refresh(ctx context.Context) error { return c.records.Load(ctx) }

// learned enqueues what changed records may affect, and wakes everybody who waits for a change.
func (c *Control) learned(changes []records.Change) {
	for _, ch := range changes {
		c.enqueueFor(ch)
		if ch.Kind == records.Identities {
			c.tellRefused(fleet.WorkerID(ch.ID))
			if _, joined := c.records.Workers.Get(fleet.WorkerID(ch.ID)); joined {
				c.judge(fleet.WorkerID(ch.ID), c.now())
			}
		}
	}
	c.broadcast()
}

func (c *Control) execute(ctx context.Context, q *queue) error {
	for {
		name, ok := q.take(ctx)
		if !ok {
			return nil
		}
		if c.records.Loaded() {
			c.attempt(ctx, name)
		}
		q.done(name)
	}
}

// Tick judges the workers by the clock, and enqueues everything that time alone may change. It is
// for simulations; Run does it at every tick.
func (c *Control) Tick() { c.tick() }

// Converge does all that is to be done now, one thing after the other in a fixed order, and returns
// when there is nothing left but waiting. It is for simulations; Run does the same at once with
// every change.
func (c *Control) Converge(ctx context.Context) {
	for {
		name, q, ok := c.nextName()
		if !ok || ctx.Err() != nil {
			return
		}
		c.attempt(ctx, name)
		q.done(name)
	}
}

func (c *Control) nextName() (string, *queue, bool) {
	if name, ok := c.fast.next(true); ok {
		return name, c.fast, true
	}
	name, ok := c.slow.next(true)
	return name, c.slow, ok
}

// attempt reconciles one record. After a lost race it is enqueued again at once; after any other
// error at the next tick.
func (c *Control) attempt(ctx context.Context, name string) {
	err := c.reconcile(ctx, name)
	switch {
	case err == nil || ctx.Err() != nil:
	case records.IsLostRace(err):
		c.requeue(name)
	default:
		c.log.WarnContext(ctx, "not done", "record", name, "error", err)
		c.mu.Lock()
		c.again = append(c.again, name)
		c.mu.Unlock()
	}
}

// retryFailed enqueues again what has failed since the last tick.
func (c *Control) retryFailed() {
	c.mu.Lock()
	names := c.again
	c.again = nil
	c.mu.Unlock()
	for _, name := range names {
		c.requeue(name)
	}
}

func (c *Control) requeue(name string) {
	if strings.HasPrefix(name, queueDisk) || strings.HasPrefix(name, queueRekey) {
		c.slow.add(name)
		return
	}
	c.fast.add(name)
}

func (c *Control) now() time.Time { return c.deps.Now() }

// ready answers Unavailable until the state was read.
func (c *Control) ready() error {
	if c.records.Loaded() {
		return nil
	}
	return errs.New(errs.Unavailable, "the control plane has not read its state yet").
		WithRemedy("try again in a moment")
}

// Changed implements fleet.Changes.
func (c *Control) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// broadcast wakes everybody who waits for a change: API watches and workers' feeds.
func (c *Control) broadcast() {
	c.mu.Lock()
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
}
