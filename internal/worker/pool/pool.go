package pool

import (
	"cmp"
	"context"
	"log/slog"
	runtimes "runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/patience"
)

// Config of a pool.
type Config struct {
	Size     int // VMs kept ready; 0: each is booted on demand
	Parallel int // boots at once to refill; default 1
	// Starts bounds concurrent boots for machines that wait; default the host's cores, at most 4.
	Starts int
	Quiet  time.Duration // how long after a claim the refill waits; default 200 ms
	// QuietMax bounds how long the refill waits while machines are being moved; default 5 s.
	QuietMax time.Duration
	// PressedMax bounds how long the refill waits for a host under pressure; default 1 min.
	PressedMax  time.Duration
	BootTimeout time.Duration // default 30 s
	Release     fleet.ReleaseID
	ReleaseDir  string
	CacheBytes  int64
	Limits      fleet.Resources // of a VM until it is bound
	FrontEnd    string          // see guestapi.Boot
}

// Deps of a pool.
type Deps struct {
	Driver   runtime.Driver
	Registry *Registry
	Logger   *slog.Logger
	Now      func() time.Time
	Busy     func() bool // whether machines are being moved
	Changed  func()      // Ready or Trouble may have changed
	// Booted is called after each boot; may be nil.
	Booted func(took time.Duration, err error)
	// Share returns how much of the time work waits on this host, 0 to 1; nil: it never does.
	Share func() float64
}

const (
	mostStarts   = 4
	muchPressure = 0.75 // share from which one VM at a time is booted
	busyPoll     = 50 * time.Millisecond
	pressedPoll  = 500 * time.Millisecond
	reapEvery    = time.Second
	failWaitMin  = time.Second
	failWaitMax  = 30 * time.Second
)

// Trouble is the reason why boots fail.
type Trouble struct {
	Since   time.Time
	Message string
}

// Pool keeps VMs ready. Safe for concurrent use.
type Pool struct {
	cfg  Config
	deps Deps
	log  *slog.Logger
	wake chan struct{}

	mu        sync.Mutex
	ready     []*VM
	waiters   []chan claimed
	booting   int
	lacking   time.Time // since when a VM has been missing; zero: none is
	lastClaim time.Time
	retryAt   time.Time // earliest time of the next refill
	failures  int       // failed boots in a row
	trouble   *Trouble

	further atomic.Int64
}

type claimed struct {
	vm  *VM
	err error
}

// New returns a pool that fills once Run is called.
func New(cfg Config, deps Deps) *Pool {
	cfg.Parallel = cmp.Or(cfg.Parallel, 1)
	cfg.Quiet = cmp.Or(cfg.Quiet, 200*time.Millisecond)
	cfg.QuietMax = cmp.Or(cfg.QuietMax, 5*time.Second)
	cfg.BootTimeout = cmp.Or(cfg.BootTimeout, 30*time.Second)
	cfg.PressedMax = cmp.Or(cfg.PressedMax, time.Minute)
	cfg.Starts = cmp.Or(cfg.Starts, min(runtimes.NumCPU(), mostStarts))
	if deps.Booted == nil {
		deps.Booted = func(time.Duration, error) {}
	}
	if deps.Share == nil {
		deps.Share = func() float64 { return 0 }
	}
	return &Pool{cfg: cfg, deps: deps, log: deps.Logger, wake: make(chan struct{}, 1)}
}

// Run fills the pool until ctx ends. Its VMs stay.
func (p *Pool) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		for ctx.Err() == nil {
			p.reap(ctx)
			n, wait := p.plan()
			for range n {
				group.Go(func() error { p.bootOne(ctx); return nil })
			}
			p.sleep(ctx, wait)
		}
		return nil
	})
	return group.Wait()
}

func (p *Pool) sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-p.wake:
	case <-t.C:
	}
}

// plan returns how many boots to begin now, which it counts as begun, and how long to wait until
// the next call at most.
func (p *Pool) plan() (begin int, wait time.Duration) {
	now := time.Now()
	busy, share := p.deps.Busy(), p.deps.Share()
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := min(len(p.waiters), p.startsAt(share)) - p.booting; n > 0 {
		p.booting += n
		return n, 0
	}
	lack := p.cfg.Size - len(p.ready) - max(0, p.booting-len(p.waiters))
	if lack <= 0 {
		// a VM that is being booted is missing still: it may fail, and has been waited for already
		if len(p.ready) >= p.cfg.Size {
			p.lacking = time.Time{}
		}
		return 0, reapEvery
	}
	if p.lacking.IsZero() {
		p.lacking = now
	}
	if p.booting >= p.cfg.Parallel {
		return 0, reapEvery // a boot that ends wakes us
	}
	quiet := p.lastClaim.Add(p.cfg.Quiet)
	switch {
	case now.Before(p.retryAt):
		return 0, p.retryAt.Sub(now)
	case now.Before(quiet):
		return 0, quiet.Sub(now)
	case busy && now.Sub(p.lacking) < p.cfg.QuietMax:
		return 0, busyPoll
	case share >= patience.UnderPressure && now.Sub(p.lacking) < p.cfg.PressedMax:
		return 0, pressedPoll
	}
	p.booting++
	return 1, 0
}

// startsAt returns how many boots may run at once for machines that wait. On a host under pressure
// concurrent boots only slow each other down.
func (p *Pool) startsAt(share float64) int {
	switch {
	case share >= muchPressure:
		return 1
	case share >= patience.UnderPressure:
		return max(p.cfg.Starts/2, 1)
	}
	return p.cfg.Starts
}

// Progress grows whenever a boot makes progress.
func (p *Pool) Progress() int64 { return p.further.Load() }

func (p *Pool) bootOne(ctx context.Context) {
	began := time.Now()
	vm, err := p.boot(ctx)
	if err == nil || ctx.Err() == nil {
		p.deps.Booted(time.Since(began), err)
	}
	p.mu.Lock()
	p.booting--
	switch {
	case err == nil:
		p.failures, p.trouble, p.retryAt = 0, nil, time.Time{}
		p.further.Add(1)
		p.offerLocked(vm)
	case ctx.Err() == nil: // else Claim gives its own answer
		p.failedLocked(err)
	}
	failures := p.failures
	p.mu.Unlock()
	if failures > 0 {
		p.log.WarnContext(ctx, "vm did not boot", "error", err, "failures", failures)
	}
	p.changed()
}

// failedLocked fails the claim that has waited longest, if there is one, and sets the time of the
// next refill.
func (p *Pool) failedLocked(err error) {
	p.failures++
	wait := min(failWaitMin<<min(p.failures-1, 10), failWaitMax)
	p.retryAt = time.Now().Add(wait)
	if p.trouble == nil {
		p.trouble = &Trouble{Since: p.deps.Now()}
	}
	p.trouble.Message = err.Error()
	if len(p.waiters) > 0 {
		p.waiters[0] <- claimed{err: err}
		p.waiters = p.waiters[1:]
	}
}

// offerLocked gives a VM to the claim that has waited longest, or keeps it ready.
func (p *Pool) offerLocked(vm *VM) {
	if len(p.waiters) > 0 {
		p.waiters[0] <- claimed{vm: vm}
		p.waiters = p.waiters[1:]
		return
	}
	p.ready = append(p.ready, vm)
}

// reap removes ready VMs that have ended, and those beyond the pool's size. A restart or an
// abandoned claim leaves such a surplus.
func (p *Pool) reap(ctx context.Context) {
	p.mu.Lock()
	var dead []*VM
	p.ready = slices.DeleteFunc(p.ready, func(vm *VM) bool {
		if ended(vm) {
			dead = append(dead, vm)
			return true
		}
		return false
	})
	var surplus []*VM
	if len(p.waiters) == 0 && len(p.ready) > p.cfg.Size && time.Since(p.lastClaim) > p.cfg.Quiet {
		surplus = slices.Clone(p.ready[p.cfg.Size:])
		p.ready = slices.Delete(p.ready, p.cfg.Size, len(p.ready))
	}
	p.mu.Unlock()
	for _, vm := range dead {
		p.log.WarnContext(ctx, "ready vm ended by itself", "vm_id", string(vm.ID()), "exit",
			vm.Status().Exit)
	}
	for _, vm := range append(dead, surplus...) {
		if err := p.Discard(ctx, vm); err != nil {
			p.log.WarnContext(ctx, "a vm of the pool could not be removed", "vm_id",
				string(vm.ID()), "error", err)
		}
	}
	if len(dead)+len(surplus) > 0 {
		p.deps.Changed()
	}
}

func ended(vm *VM) bool {
	select {
	case <-vm.Done():
		return true
	default:
		return false
	}
}

// Discard removes a VM and forgets it.
func (p *Pool) Discard(ctx context.Context, vm *VM) error {
	vm.Guest.Close()
	if err := vm.Remove(ctx); err != nil {
		return errs.Wrap(errs.KindOf(err), err, "remove VM %s", vm.ID())
	}
	return p.deps.Registry.Drop(vm.ID())
}

// Adopt takes in an empty VM that answers: one of an earlier worker, or one that was claimed in
// vain.
func (p *Pool) Adopt(vm *VM) {
	p.mu.Lock()
	p.ready = append(p.ready, vm)
	p.mu.Unlock()
	p.changed()
}

// Claim returns a ready VM, or boots one. The caller owns the VM, and ends it with Discard. If ctx
// ends first, a VM that was booting for the caller goes to the pool.
func (p *Pool) Claim(ctx context.Context) (*VM, error) {
	p.mu.Lock()
	p.lastClaim = time.Now()
	for i, vm := range p.ready {
		if !ended(vm) {
			p.ready = slices.Delete(p.ready, i, i+1)
			p.mu.Unlock()
			p.changed()
			return vm, nil
		}
	}
	answer := make(chan claimed, 1)
	p.waiters = append(p.waiters, answer)
	p.mu.Unlock()
	p.changed()
	select {
	case c := <-answer:
		return c.vm, c.err
	case <-ctx.Done():
	}
	p.giveUp(ctx, answer)
	return nil, errs.Wrap(errs.Unavailable, ctx.Err(), "wait for a VM")
}

func (p *Pool) giveUp(ctx context.Context, answer chan claimed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.waiters, answer); i >= 0 {
		p.waiters = slices.Delete(p.waiters, i, i+1)
		return
	}
	if c := <-answer; c.vm != nil { // it came at the same moment
		p.offerLocked(c.vm)
	}
}

// Ready returns how many VMs are ready.
func (p *Pool) Ready() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ready)
}

// Booting returns how many VMs are booting.
func (p *Pool) Booting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.booting
}

// List returns the ready VMs.
func (p *Pool) List() []*VM {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.ready)
}

// Trouble returns why boots fail; nil if the last one succeeded.
func (p *Pool) Trouble() *Trouble {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.trouble == nil {
		return nil
	}
	t := *p.trouble
	return &t
}

func (p *Pool) changed() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
	p.deps.Changed()
}
