package worker

import (
	"context"
	"reflect"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const refusedPause = 2 * time.Second

// uplink keeps the worker in the fleet: it joins, then polls and reports side by side, and joins
// again when the server doesn't know it.
func (w *Worker) uplink(ctx context.Context, joined bool) error {
	for ctx.Err() == nil {
		if !joined {
			if _, err := w.join(ctx); err != nil {
				// Machines run here and need their gateways, so a refusal doesn't end the worker.
				w.log.ErrorContext(ctx, "the server does not take this worker", "error", err,
					"remedy", errs.RemedyOf(err))
				sleep(ctx, refusedPause)
				continue
			}
		}
		joined = false
		group, gctx := errgroup.WithContext(ctx)
		group.Go(func() error { return w.reportLoop(gctx) })
		group.Go(func() error { return w.pollLoop(gctx) })
		group.Go(func() error { return w.rekeyLoop(gctx) })
		if err := group.Wait(); err != nil && !errs.Is(err, errs.NotFound) {
			return err
		}
		sleep(ctx, 50*time.Millisecond)
	}
	return nil
}

// pollLoop fetches assignments until the server answers NotFound or ctx ends.
func (w *Worker) pollLoop(ctx context.Context) error {
	wait := backoff.New(50*time.Millisecond, 2*time.Second)
	var after int64
	for ctx.Err() == nil {
		set, cut, err := w.poll(ctx, after)
		switch {
		case ctx.Err() != nil:
		case errs.Is(err, errs.NotFound):
			return err
		case cut:
		case err != nil:
			w.notFetched(ctx, err)
			sleep(ctx, wait.Next())
		case set.Worker != w.cfg.Worker:
			w.log.ErrorContext(ctx, "the server answered with another worker's assignments",
				"answered_for", string(set.Worker))
			sleep(ctx, wait.Next())
		default:
			wait.Reset()
			after = set.Revision
			w.apply(ctx, set)
		}
	}
	return nil
}

// notFetched says why there are no assignments, and to whom that is a task.
func (w *Worker) notFetched(ctx context.Context, err error) {
	if !errs.Is(err, errs.Denied) {
		w.log.WarnContext(ctx, "assignments could not be fetched", "error", err)
		return
	}
	w.log.ErrorContext(ctx,
		"the server refuses this worker; its machines run on here, and are started elsewhere",
		"error", err, "remedy", errs.RemedyOf(err))
}

// poll asks once for assignments; cut: redial ended the call.
func (w *Worker) poll(ctx context.Context,
	after int64) (set fleet.AssignmentSet, cut bool, err error) {
	pctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.mu.Lock()
	w.redialed = cancel
	w.mu.Unlock()
	set, err = w.deps.Server.Assignments(pctx, w.cfg.Worker, after)
	w.mu.Lock()
	w.redialed = nil
	w.mu.Unlock()
	return set, err != nil && pctx.Err() != nil, err
}

// redial cuts the present long poll, so that the next one uses a new connection.
func (w *Worker) redial() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.redialed != nil {
		w.redialed()
	}
}

// apply hands a set of assignments out to the actors of the machines. Each actor decides by itself
// whether its assignment is newer than what it knows.
func (w *Worker) apply(ctx context.Context, set fleet.AssignmentSet) {
	w.wantAuthority(set.Authority)
	named := make(map[fleet.MachineID]bool, len(set.Assignments))
	var failed error
	for _, a := range set.Assignments {
		if !fleet.IsMachineID(string(a.Machine)) {
			w.log.ErrorContext(ctx, "an assignment names no machine", "machine_id",
				string(a.Machine))
			continue
		}
		named[a.Machine] = true
		if w.offer(a, set.Private[a.Machine]) {
			continue
		}
		rec, err := w.records.load(a.Machine)
		if err != nil {
			failed = err
			w.log.ErrorContext(ctx, "a machine's record can not be read", "machine_id",
				string(a.Machine), "error", err)
			continue
		}
		m := newMachine(w, a.Machine, rec)
		m.offer(&a, set.Private[a.Machine])
		w.launch(m)
	}
	w.conditions.set(fleet.ConditionRecordsUnreadable, failed)
	w.mu.Lock()
	for id, m := range w.machines {
		if !named[id] {
			m.offer(nil, fleet.Private{})
		}
	}
	w.revision = set.Revision
	set.Private = nil // the machines have theirs
	w.set = set
	w.mu.Unlock()
	select {
	case w.netWake <- struct{}{}:
	default:
	}
	w.changed()
}

// offer gives a known machine its assignment, and reports whether the machine is known. It holds
// the lock meanwhile, so that the machine can't be forgotten in between.
func (w *Worker) offer(a fleet.Assignment, private fleet.Private) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, ok := w.machines[a.Machine]
	if ok {
		m.offer(&a, private)
	}
	return ok
}

// forget removes a machine's actor. It returns false if an assignment has named the machine again.
func (w *Worker) forget(m *machine) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.named {
		return false
	}
	delete(w.machines, m.id)
	return true
}

// rekeyLoop renews the tunnel's key, and joins again with it, so that other workers hear of it.
func (w *Worker) rekeyLoop(ctx context.Context) error {
	for ctx.Err() == nil {
		sleep(ctx, w.cfg.TunnelKeyLife/rekeyChecks)
		fresh, err := w.deps.HostNet.RenewTunnel(ctx, w.cfg.TunnelKeyLife)
		if ctx.Err() != nil {
			return nil
		}
		w.conditions.set(fleet.ConditionTunnelKeyOld, err)
		if err != nil {
			w.log.ErrorContext(ctx, "the tunnel's key could not be renewed", "error", err)
			continue
		}
		if !fresh {
			continue
		}
		if _, err := w.join(ctx); err != nil {
			w.log.ErrorContext(ctx, "the server does not take the tunnel's new key", "error", err)
		}
	}
	return nil
}

// rekeyChecks is how often in its life a key is looked at.
const rekeyChecks = 20

// netCheck is how often the way to other workers is looked at: one question to the kernel.
const netCheck = 5 * time.Second

// netLoop makes the routes to other workers match the newest set.
func (w *Worker) netLoop(ctx context.Context) error {
	wait := backoff.New(100*time.Millisecond, 5*time.Second)
	var done fleet.AssignmentSet
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-w.netWake:
		case <-time.After(netCheck):
			if w.deps.HostNet.Intact() {
				continue
			}
			w.log.WarnContext(ctx, "the way to other workers has gone; it is made again")
			done = fleet.AssignmentSet{}
		}
		w.mu.Lock()
		set := w.set
		w.mu.Unlock()
		if reflect.DeepEqual(done.Networks, set.Networks) &&
			reflect.DeepEqual(done.Peers, set.Peers) {
			continue
		}
		err := w.deps.HostNet.SyncPeers(ctx, set.Networks, set.Peers)
		if ctx.Err() != nil {
			return nil
		}
		w.conditions.set(fleet.ConditionNetworkFailing, err)
		if err == nil {
			done = set
			wait.Reset()
			continue
		}
		w.log.WarnContext(ctx, "routes could not be set", "error", err)
		sleep(ctx, wait.Next())
		select {
		case w.netWake <- struct{}{}:
		default:
		}
	}
	return nil
}
