package worker

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/worker/pool"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// publish copies the actor's state to where reports and the API read it, and asks for a report if
// that changed.
func (m *machine) publish() {
	r := m.observed()
	vm, busy := m.vm, false
	run := m.rec.Run
	if run == nil || !run.Bound || run.End != nil {
		vm = nil
	}
	if run != nil && run.End == nil {
		switch run.Phase {
		case fleet.PhasePreparing, fleet.PhasePrepared, fleet.PhaseAttaching, fleet.PhaseStarting,
			fleet.PhaseRunning, fleet.PhaseStopping:
			busy = true // also prepared: its source is about to be stopped
		case fleet.PhaseEmpty, fleet.PhaseHealthy, fleet.PhaseReleased, fleet.PhaseFailed,
			fleet.PhaseFenced:
		}
	}
	m.mu.Lock()
	changed := !sameReport(m.report, r)
	if m.pending && !m.dirty && m.offered == nil {
		m.pending, changed = false, true
	}
	m.report, m.reachable, m.busy, m.steps = r, vm, busy, stepsOf(m.health)
	m.stale = vm != nil && !m.heard
	m.mu.Unlock()
	if changed {
		m.host.changed()
	}
}

// observed returns the machine's report without the gateway's counts; nil: nothing to report.
func (m *machine) observed() *fleet.VMReport {
	run := m.rec.Run
	if run == nil || run.Phase == "" {
		return nil
	}
	r := &fleet.VMReport{
		Machine: m.id, Generation: run.Generation, Instance: run.Instance,
		Phase: run.Phase, Since: run.Since, VM: run.VM, HasVM: run.VM != "",
		Release: run.Release, Version: m.health.Version,
		Disk:     run.Disk,
		Timeline: maps.Clone(run.Timeline),
		Services: slices.Clone(m.health.Services),
	}
	if run.Bound && run.End == nil {
		r.Stall, r.SilentSince = m.health.Stall, m.silence()
	}
	r.OOM, r.Platform = m.health.OOM, m.health.Platform
	r.Disk.Epoch = max(r.Disk.Epoch, m.health.Disk.Epoch)
	r.Disk.Replayed = max(r.Disk.Replayed, m.health.Disk.Replayed)
	r.Disk.FrontEnd = cmp.Or(m.health.Disk.FrontEnd, r.Disk.FrontEnd)
	r.Disk.Ungrown = cmp.Or(m.health.Disk.Ungrown, r.Disk.Ungrown)
	if run.End != nil {
		r.ErrorKind, r.Error, r.Remedy = run.End.ErrorKind, run.End.Error, run.End.Remedy
	}
	return r
}

// sameReport reports whether b has nothing new that should be reported at once.
func sameReport(a, b *fleet.VMReport) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Generation == b.Generation && a.Phase == b.Phase && a.VM == b.VM &&
		a.Error == b.Error && a.Stall.Same(b.Stall) && a.OOM.Same(b.OOM) &&
		a.SilentSince.Equal(b.SilentSince) && a.Platform.Same(b.Platform) &&
		slices.Equal(a.Services, b.Services)
}

// diskReport returns what the disk did in this run: the greater of the gateway's counts and the
// platform's, which has counted since before this worker was started.
func (m *machine) diskReport() fleet.DiskReport {
	return countDisk(m.rec.Run.Disk, m.health.Disk, m.gate)
}

// snapshot returns the newest report with current counts; nil: nothing to report. pending: an
// assignment isn't durable yet. stale: the report is from before this worker was started.
func (m *machine) snapshot() (r *fleet.VMReport, pending, stale bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.report == nil {
		return nil, m.pending, m.stale
	}
	c := *m.report
	var read int64
	if m.gate != nil {
		read = m.gate.Counts().BytesRead
		c.Disk = countDisk(c.Disk, fleet.DiskReport{}, m.gate)
	}
	c.Progress = m.mark.advance(markOf(&c, m.steps, m.host.pool.Progress(), read))
	return &c, m.pending, m.stale
}

func (m *machine) isBusy() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.busy
}

// vmOf returns the VM to which calls for the machine go, nil if it isn't running, and the machine's
// phase. stale: that is from before this worker was started.
func (m *machine) vmOf() (vm *pool.VM, phase fleet.Phase, stale bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.report == nil {
		return nil, "", m.stale
	}
	return m.reachable, m.report.Phase, m.stale
}

const (
	reportTimeout = 5 * time.Second
	foundTimeout  = time.Second // for VMs found at the start, before the first report
)

// reportLoop posts the worker's whole state at each change and each heartbeat, one post at a time.
// It returns NotFound when the server doesn't know this worker, which must then join again.
func (w *Worker) reportLoop(ctx context.Context) error {
	w.awaitFound(ctx)
	wait := backoff.New(50*time.Millisecond, 2*time.Second)
	tick := time.NewTicker(w.cfg.Heartbeat)
	defer tick.Stop()
	for ctx.Err() == nil {
		err := w.post(ctx)
		switch {
		case ctx.Err() != nil:
		case errs.Is(err, errs.NotFound):
			return err
		case err != nil:
			w.log.WarnContext(ctx, "report did not arrive", "error", err)
			w.reportFailed = true
			sleep(ctx, wait.Next())
		default:
			wait.Reset()
			if w.reportFailed {
				w.reportFailed = false
				w.redial() // the long poll may hang on a dead connection too
			}
			select {
			case <-ctx.Done():
			case <-w.dirty:
				sleep(ctx, w.cfg.Coalesce)
			case <-tick.C:
			}
		}
	}
	return nil
}

func (w *Worker) post(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	select { // a later change is in this report, or asks for another one
	case <-w.dirty:
	default:
	}
	return w.deps.Server.Report(ctx, w.observe())
}

// observe returns the worker's whole state.
func (w *Worker) observe() fleet.WorkerReport {
	w.mu.Lock()
	machines := slices.Collect(maps.Values(w.machines))
	revision := w.revision
	w.sequence++
	r := fleet.WorkerReport{
		Worker: w.cfg.Worker, Boot: w.boot, Sequence: w.sequence,
		Release: w.cfg.Release, Version: w.cfg.Version,
		Authority: w.deps.Identity.Version(),
	}
	w.mu.Unlock()
	acting := true
	for _, m := range machines {
		v, pending, _ := m.snapshot()
		acting = acting && !pending
		if v != nil {
			r.VMs = append(r.VMs, *v)
		}
	}
	if acting { // every assignment of the set is durable
		w.seen.Store(revision)
	}
	r.Seen = w.seen.Load()
	slices.SortFunc(r.VMs, func(a,
		b fleet.VMReport) int {
		return compareIDs(a.Machine, b.Machine)
	})
	r.PoolReady = w.pool.Ready()
	r.Conditions = w.conditionsNow()
	r.StoreKey = w.deps.StoreKeys.Report()
	r.Acceleration, r.Pressure = w.acceleration.Load(), w.pressure.Load()
	return r
}

// awaitFound waits, at most 1 s, until every VM found at the start has reported its state.
// Otherwise the first report would omit what the last one told.
func (w *Worker) awaitFound(ctx context.Context) {
	deadline := time.Now().Add(foundTimeout)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		w.mu.Lock()
		machines := slices.Collect(maps.Values(w.machines))
		w.mu.Unlock()
		if !slices.ContainsFunc(machines,
			func(m *machine) bool { _, _, stale := m.snapshot(); return stale }) {
			return
		}
		sleep(ctx, 5*time.Millisecond)
	}
}
