package worker

import (
	"context"
	"errors"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/worker/gateway"
	"github.com/sluice-platform/sluice/internal/worker/pool"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/patience"
)

const (
	prepareTimeout = time.Minute
	bindTimeout    = 10 * time.Second
	removeTimeout  = time.Minute
	releasePause   = 100 * time.Millisecond
	// how long the platform may answer nothing; just under the timeout of one probe
	muteAfter = 1900 * time.Millisecond
)

// claim is a VM for a machine, and the access that it will have to the machine's disk.
type claim struct {
	vm     *pool.VM
	access gateway.Access
}

// bootFailure marks a claim that failed because a VM did not boot. It isn't retried here: the
// control plane decides whether to try another worker.
type bootFailure struct{ error }

func (b bootFailure) Unwrap() error { return b.error }

func isBootFailure(err error) bool {
	var b bootFailure
	return errors.As(err, &b)
}

// start runs a step as a task. A task gets copies, and shares nothing with the actor but its
// result.
func (m *machine) start(ctx context.Context, s step) {
	tctx, cancel := context.WithCancel(ctx)
	began := time.Now()
	m.task = &task{step: s, began: began, cancel: cancel}
	run, a, vm := *m.rec.Run, m.rec.Assignment, m.vm
	gate, private := m.gate, m.privateNow()
	var work func(context.Context) result
	switch s {
	case stepClaim:
		work = func(ctx context.Context) result { return m.claimVM(ctx, a) }
	case stepPrepare:
		gate.Grant(run.Access)
		work = func(ctx context.Context) result { return m.prepare(ctx, vm, gate, run, a, private) }
	case stepBind:
		gate.Grant(run.Access)
		m.binding = bindTried
		work = func(ctx context.Context) result { return m.bind(ctx, vm, gate, run, a, private) }
	case stepRelease:
		m.releasing = true
		gate.Closing()
		m.setPhase(fleet.PhaseStopping)
		work = func(ctx context.Context) result { return m.releaseMachine(ctx, vm, run, a) }
	case stepRemove:
		work = func(ctx context.Context) result { return result{err: m.remove(ctx, vm, run)} }
	}
	m.group.Go(func() error {
		defer cancel()
		r := work(tctx)
		r.step, r.began, r.ended = s, began, time.Now()
		m.results <- r // never blocks: one task at a time, one place in the channel
		return nil
	})
}

// claimVM takes a VM from the pool and, at the same time, reads the disk's identity from the store.
func (m *machine) claimVM(ctx context.Context, a fleet.Assignment) result {
	path, err := diskPath(m.host.storeURL, a.Disk.URL)
	if err != nil {
		return result{err: err}
	}
	var vm *pool.VM
	access := gateway.Access{Token: pool.NewToken(accessTokenBytes), DiskPath: path}
	var group errgroup.Group
	group.Go(func() error {
		var err error
		if vm, err = m.host.pool.Claim(ctx); err != nil && ctx.Err() == nil {
			return bootFailure{err}
		}
		return err
	})
	group.Go(func() error {
		var err error
		access.Disk, err = gateway.ReadIdentity(ctx, m.host.store, path)
		return err
	})
	if err := group.Wait(); err != nil {
		if vm != nil {
			m.host.pool.Adopt(vm) // it is still empty
		}
		return result{err: err}
	}
	return result{claim: &claim{vm: vm, access: access}}
}

// take gives a claimed VM to the run, or back to the pool if the run no longer needs one.
func (m *machine) take(c *claim) {
	run := m.rec.Run
	if run == nil || run.VM != "" || run.End != nil {
		m.host.pool.Adopt(c.vm) // not needed any more, and still empty
		return
	}
	run.VM, run.ControlToken = c.vm.ID(), c.vm.ControlToken
	run.Release, run.Access = c.vm.Release, c.access
	m.dirty = true
	m.connect(c.vm)
}

// connect opens the VM's gateway, and subscribes to its platform's reports. The gateway is closed
// to everybody unless an earlier worker let the VM in.
func (m *machine) connect(vm *pool.VM) {
	m.vm, m.vmEnd, m.graceEnd = vm, vm.Done(), time.Time{}
	gate := gateway.New(gateway.Config{
		Store: m.host.store, Logger: m.log, Memory: m.host.memory,
		Codec: m.host.codec, Limits: m.host.cfg.Limits,
		Listen: m.host.listenOn(vm.HostLink()),
		Done:   m.requested, Refused: m.host.deps.Metrics.Refused,
	})
	if run := m.rec.Run; vm == m.found && run.End == nil && run.Access.Token != "" {
		// Before it is served: the VM goes on asking what the gateway of the earlier worker left
		// without an answer, and that its token isn't known is one.
		gate.Grant(run.Access)
	}
	m.mu.Lock()
	m.gate, m.silent = gate, time.Time{}
	m.flushes = flushCount{vm: vm.ID(), adopted: vm == m.found}
	m.mu.Unlock()
	var gctx, fctx context.Context
	gctx, m.gateStop = context.WithCancel(m.ctx)
	fctx, m.followEnd = context.WithCancel(m.ctx)
	m.group.Go(func() error {
		if err := gate.Run(gctx); err != nil {
			m.log.ErrorContext(gctx, "store gateway ended", "vm_id", string(vm.ID()), "error", err)
		}
		return nil
	})
	m.group.Go(func() error {
		vm.Guest.Follow(fctx, func(h guestapi.Health) { m.deliver(event{vm.ID(), h, time.Now()}) })
		return nil
	})
	m.group.Go(func() error {
		m.watchAlive(fctx, vm)
		return nil
	})
}

// deliver hands the newest event to the actor, in place of one that the actor hasn't taken yet.
// Nothing is lost by that: each event has the platform's whole state and its timeline.
func (m *machine) deliver(e event) {
	for {
		select {
		case m.events <- e:
			return
		default:
		}
		select {
		case <-m.events:
		default:
		}
	}
}

func (m *machine) stopFollowing() {
	if m.followEnd != nil {
		m.followEnd()
		m.followEnd = nil
	}
}

// closeGate closes the port of the VM's gateway.
func (m *machine) closeGate() {
	if m.gateStop != nil {
		m.gateStop()
		m.gateStop = nil
	}
}

// dropVM forgets a VM that has been removed.
func (m *machine) dropVM() {
	m.stopFollowing()
	m.closeGate()
	m.mu.Lock()
	m.gate = nil
	m.mu.Unlock()
	m.vm, m.vmEnd, m.graceEnd = nil, nil, time.Time{}
}

func awaitGate(ctx context.Context, gate *gateway.Gateway) error {
	select {
	case <-gate.Ready():
		return nil
	case <-ctx.Done():
		return errs.Wrap(errs.Unavailable, ctx.Err(), "wait for the store gateway")
	}
}

func (m *machine) prepare(ctx context.Context, vm *pool.VM, gate *gateway.Gateway, run machineRun,
	a fleet.Assignment, private fleet.Private) result {
	ctx, cancel := context.WithTimeout(ctx, m.host.patient(prepareTimeout))
	defer cancel()
	if err := awaitGate(ctx, gate); err != nil {
		return result{err: err}
	}
	h, err := vm.Guest.Prepare(ctx, guestapi.Prepare{Machine: a.Machine,
		Store: guestapi.StoreAccess{DiskPath: run.Access.DiskPath, Token: run.Access.Token,
			Keys: private.DiskKeys}})
	return result{err: err, health: h}
}

// bind gives the VM its limits, its place in the network and its identity.
func (m *machine) bind(ctx context.Context, vm *pool.VM, gate *gateway.Gateway, run machineRun,
	a fleet.Assignment, private fleet.Private) result {
	ctx, cancel := context.WithTimeout(ctx, m.host.patient(bindTimeout))
	defer cancel()
	if runtime := m.host.deps.Driver.Name(); !a.Config.Isolation.GivenBy(runtime) {
		return result{err: errs.New(errs.Denied,
			"machine %s is for workers whose VMs have a kernel, and this one's runtime is %s",
			a.Machine, runtime)}
	}
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error { return awaitGate(gctx, gate) })
	group.Go(func() error {
		err := vm.SetLimits(gctx, a.Config.Resources.Add(m.host.cfg.Overhead))
		if errs.Is(err, errs.Unsupported) {
			return nil // it keeps the limits that it was started with
		}
		return err
	})
	group.Go(func() error {
		return m.host.deps.HostNet.AddMachine(gctx, fleet.MachineLink{
			Machine: a.Machine, NetworkID: a.NetworkID, Address: a.Address,
			Interface: vm.HostLink(),
		})
	})
	if err := group.Wait(); err != nil {
		return result{err: err}
	}
	h, err := vm.Guest.Bind(ctx, guestapi.Bind{
		Machine: a.Machine, Generation: run.BoundGeneration, Instance: a.Instance,
		Name: a.Name, App: a.App, Network: a.Network, Address: a.Address,
		MTU: m.host.deps.HostNet.Wire().MTU, Worker: m.host.cfg.Worker,
		Store: guestapi.StoreAccess{DiskPath: run.Access.DiskPath, Token: run.Access.Token,
			Keys: private.DiskKeys},
		Config: a.Config, Secrets: private.Secrets,
	})
	return result{err: err, health: h}
}

// releaseMachine asks the platform to stop the machine and close its disk, and returns once the
// disk is closed. It repeats the request until the platform refuses (its error), doesn't answer
// (Unavailable), or has had CloseGrace and CloseMax.
func (m *machine) releaseMachine(ctx context.Context, vm *pool.VM, run machineRun,
	a fleet.Assignment) result {
	stop := a.Config.Stop.TimeoutOrDefault()
	began := time.Now()
	for {
		h, err := m.askRelease(ctx, vm, guestapi.ReleaseMachine{Machine: m.id,
			Generation: run.BoundGeneration}, stop+m.host.patient(m.host.cfg.CloseGrace))
		if err == nil || ctx.Err() != nil {
			return result{err: err, health: h}
		}
		select {
		case <-vm.Done():
			return result{err: errs.Wrap(errs.Unavailable, err,
				"the VM ended before its disk was closed")}
		default:
		}
		var healthErr error
		h, healthErr = m.askUntilMute(ctx, vm)
		switch {
		case healthErr != nil:
			return result{err: errs.Wrap(errs.Unavailable, err, "the platform does not answer")}
		case h.State == guestapi.StateReleased:
			return result{health: h}
		case h.State == guestapi.StateEmpty || h.State == guestapi.StatePrepared:
			return result{err: errNotBound}
		case h.State == guestapi.StateFenced:
			return result{err: errs.Wrap(errs.Fenced, err, "release")}
		case h.State == guestapi.StateFailed || !errs.Is(err, errs.Unavailable):
			return result{err: err}
		case time.Since(began) > stop+m.host.patient(m.host.cfg.CloseGrace+m.host.cfg.CloseMax):
			return result{err: errs.Wrap(errs.Unavailable, err,
				"the disk could not be closed for %s", time.Since(began).Round(time.Second))}
		}
		// it is still closing, for example because the store is unreachable
		_ = backoff.Sleep(ctx, releasePause) // the next request tells that ctx has ended
	}
}

// askUntilMute returns the platform's state. It asks again while the platform may only be slow or
// restarting, because giving up leaves the disk unclosed.
func (m *machine) askUntilMute(ctx context.Context, vm *pool.VM) (guestapi.Health, error) {
	var mute patience.Watch
	mute.Look(time.Now(), "", m.host.share())
	for {
		h, err := pool.Probe(ctx, vm)
		if err == nil || ctx.Err() != nil ||
			mute.Look(time.Now(), "", m.host.share()) >= muteAfter {
			return h, err
		}
		select {
		case <-vm.Done():
			return h, err
		case <-ctx.Done():
		case <-time.After(releasePause):
		}
	}
}

// askRelease sends one request, and stops waiting soon after the VM has ended.
func (m *machine) askRelease(ctx context.Context, vm *pool.VM, r guestapi.ReleaseMachine,
	patience time.Duration) (guestapi.Health, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	over := make(chan struct{})
	var h guestapi.Health
	var group errgroup.Group
	group.Go(func() (err error) {
		defer close(over)
		h, err = vm.Guest.ReleaseMachine(ctx, r)
		m.countFlushes(vm.ID(), h.Flushes) // the last that is heard of it
		return err
	})
	select {
	case <-over:
	case <-vm.Done():
		select {
		case <-over:
		case <-time.After(exitGrace / 2):
			cancel()
		}
	}
	err := group.Wait()
	return h, err
}

// remove removes the run's VM and its place in the network. Idempotent.
func (m *machine) remove(ctx context.Context, vm *pool.VM, run machineRun) error {
	ctx, cancel := context.WithTimeout(ctx, m.host.patient(removeTimeout))
	defer cancel()
	if run.Phase == fleet.PhaseFailed && vm != nil {
		m.log.WarnContext(ctx, "a failed machine's vm is removed", "vm_id", string(run.VM),
			"console", pool.ConsoleTail(vm))
	}
	var group errgroup.Group
	group.Go(func() error {
		if vm == nil {
			return m.host.registry.Drop(run.VM)
		}
		return m.host.pool.Discard(ctx, vm)
	})
	if run.Bound {
		group.Go(func() error { return m.host.deps.HostNet.RemoveMachine(ctx, m.id) })
	}
	return group.Wait()
}

// diskPath returns a disk's path relative to the pool. Invalid if the disk isn't in the pool.
func diskPath(storeURL, diskURL string) (string, error) {
	base, _, _ := strings.Cut(storeURL, "?")
	disk, _, _ := strings.Cut(diskURL, "?")
	path, ok := strings.CutPrefix(disk, strings.TrimSuffix(base, "/")+"/")
	if !ok || path == "" {
		return "", errs.New(errs.Invalid, "disk %s is not in the fleet's store %s", diskURL, base).
			WithRemedy("fork it into the fleet's store")
	}
	return path, nil
}
