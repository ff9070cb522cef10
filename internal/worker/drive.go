package worker

import (
	"context"
	"errors"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/worker/gateway"
	"github.com/sluice-platform/sluice/internal/worker/pool"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// task is a step that takes time and is under way.
type task struct {
	step        step
	began       time.Time
	cancel      context.CancelFunc
	interrupted bool
	measured    bool // as a part of the wait that it ended
}

// result is how a task ended. claim is set by stepClaim.
type result struct {
	step   step
	err    error
	claim  *claim
	health guestapi.Health // by stepPrepare, stepBind and stepRelease
	began  time.Time
	ended  time.Time
}

const (
	retryMin = 20 * time.Millisecond
	retryMax = 2 * time.Second
)

// retry spaces the attempts at one step.
type retry struct {
	step  step
	since time.Time // of the first failure in a row
	at    time.Time // next attempt
	wait  time.Duration
}

// failed records a failure, and returns for how long the step has done nothing but fail.
func (r *retry) failed(s step, now time.Time) time.Duration {
	if r.step != s {
		*r = retry{step: s, since: now, wait: retryMin}
	}
	r.at = now.Add(r.wait)
	r.wait = min(2*r.wait, retryMax)
	return now.Sub(r.since)
}

func (r *retry) until() time.Duration { return time.Until(r.at) }

const stepSave step = "save"

// drive does one step after the other until it has to wait, and reports whether the machine is
// forgotten. It saves the record before it does anything that follows from it.
func (m *machine) drive(ctx context.Context) (forgotten bool) {
	m.waiting = false
	for {
		if m.dirty {
			m.publish() // what has already happened can be reported before it is saved
			if m.waiting = !m.save(ctx); m.waiting {
				return false
			}
		}
		s := next(m.situation())
		if m.task != nil {
			if m.task.step != s && !m.task.interrupted {
				m.task.interrupted = true
				m.task.cancel()
			}
			return false
		}
		switch s {
		case stepNone:
			return false
		case stepForget:
			return m.forget(ctx)
		case stepClaim, stepPrepare, stepBind, stepRelease, stepRemove:
			if m.waiting = m.retry.step == s && m.retry.until() > 0; m.waiting {
				return false
			}
			if m.awaitsKeys(ctx, s) {
				return false // the set of assignments that brings them wakes it
			}
			m.start(ctx, s)
			return false
		}
		m.applyStep(s)
	}
}

// save makes the record durable; false: it failed, and will be tried again.
func (m *machine) save(ctx context.Context) bool {
	if m.retry.step == stepSave && m.retry.until() > 0 {
		return false
	}
	began := time.Now()
	err := m.host.records.save(m.id, m.rec)
	m.measured.did(didRemember, began, time.Now())
	m.host.conditions.set(fleet.ConditionRecordsUnwritable, err)
	if err != nil {
		m.log.ErrorContext(ctx, "machine could not be remembered", "error", err)
		m.retry.failed(stepSave, time.Now())
		return false
	}
	if m.retry.step == stepSave {
		m.retry = retry{}
	}
	m.dirty = false
	return true
}

// applyStep does a step of the first group, which only changes the record.
func (m *machine) applyStep(s step) {
	run := m.rec.Run
	switch s {
	case stepBegin:
		m.begin()
	case stepIntend:
		run.Bound, run.BoundGeneration = true, run.Generation
		run.Instance = m.rec.Assignment.Instance
		run.Access.Token = pool.NewToken(accessTokenBytes)
		run.Access.Writable, run.Access.Generation = true, run.Generation
		m.binding, m.dirty = bindNeeded, true
		m.setPhase(fleet.PhaseAttaching)
	case stepDrop:
		m.end(fleet.PhaseReleased, m.dropNote())
	case stepDiscard:
		m.end(fleet.PhaseReleased, errs.New(errs.Unavailable, "discarded without closing the disk"))
	case stepLost:
		m.vmGone("the VM was gone when the worker looked for it")
	case stepReportReleased:
		m.reportReleased()
	}
}

// dropNote returns the note on a run that never had the disk: nil if this worker knows of the run,
// and "unclean" if it is asked to release a machine that it has never seen.
func (m *machine) dropNote() error {
	run := m.rec.Run
	if run.VM == "" && run.Phase == "" && m.rec.Assignment.Want == fleet.WantReleased {
		return unclean("no VM of it is here, and nothing is known of one")
	}
	return nil
}

// reportReleased reports a run that has ended in another way as released: nothing is left here
// that could be closed.
func (m *machine) reportReleased() {
	run := m.rec.Run
	if run.Bound && run.End.Error != "" {
		run.End.Error = unclean(run.End.Error).Error()
		run.End.ErrorKind = string(errs.Unavailable)
	} else {
		*run.End = ending{Want: run.End.Want}
	}
	m.setPhase(fleet.PhaseReleased)
}

const accessTokenBytes = 24

// begin starts a new run under the newest assignment.
func (m *machine) begin() {
	a := m.rec.Assignment
	m.rec.Run = &machineRun{
		Generation: a.Generation, Instance: a.Instance,
		Timeline: map[fleet.Phase]time.Time{}, Since: m.host.now(),
	}
	m.health, m.heard, m.measured.told = guestapi.Health{}, false, nil
	m.binding, m.prepared, m.releasing = bindUnknown, false, false
	m.retry, m.dirty = retry{}, true
	if a.Want == fleet.WantPrepared || a.Want == fleet.WantRunning {
		m.setPhase(fleet.PhasePreparing)
	}
}

// setPhase records that the run has reached a phase.
func (m *machine) setPhase(p fleet.Phase) {
	run := m.rec.Run
	if run.Phase == p {
		return
	}
	run.Phase, run.Since = p, m.host.now()
	if _, ok := run.Timeline[p]; !ok {
		run.Timeline[p] = run.Since
	}
	switch p {
	case fleet.PhaseRunning, fleet.PhaseHealthy, fleet.PhaseReleased, fleet.PhaseFailed,
		fleet.PhaseFenced:
		m.dirty = true // a restarted worker reports these before its platform has answered
	case fleet.PhaseEmpty, fleet.PhasePreparing, fleet.PhasePrepared, fleet.PhaseAttaching,
		fleet.PhaseStarting, fleet.PhaseStopping:
	}
	m.measure(p)
	m.log.Info("machine reached a phase", "phase", string(p), "generation", run.Generation,
		"vm_id", string(run.VM))
}

// end ends the run in phase p. It revokes the run's token and closes its gateway, so that requests
// which its VM still makes until it is removed fail.
func (m *machine) end(p fleet.Phase, cause error) {
	run := m.rec.Run
	run.End = &ending{Want: m.rec.Assignment.Want}
	if cause != nil {
		run.End.ErrorKind, run.End.Error = string(errs.KindOf(cause)), cause.Error()
		run.End.Remedy = errs.RemedyOf(cause)
		m.log.Warn("machine ended", "phase", string(p), "generation", run.Generation, "vm_id",
			string(run.VM), "error", cause)
	}
	if m.gate != nil {
		m.gate.Revoke()
		run.Disk = m.diskReport()
	}
	m.closeGate()
	m.stopFollowing()
	m.setPhase(p)
	m.dirty, m.retry = true, retry{}
}

// forget drops what is known of the machine but its generation; false: not possible yet.
func (m *machine) forget(ctx context.Context) bool {
	m.rec.Run, m.rec.Forgotten, m.dirty = nil, m.host.now(), true
	if m.waiting = !m.save(ctx); m.waiting {
		return false
	}
	return m.host.forget(m)
}

// finish handles the result of a task.
func (m *machine) finish(ctx context.Context, r result) {
	t := m.task
	m.task = nil
	if !t.measured {
		m.measured.did(string(r.step), r.began, r.ended)
	}
	if r.claim != nil {
		m.take(r.claim) // even if interrupted: the pool has given the VM away
	}
	switch {
	case ctx.Err() != nil, m.rec.Run == nil:
	case r.err == nil:
		m.done(r)
	case t.interrupted:
	case m.rec.Run.End != nil && r.step != stepRemove: // it ended meanwhile
	default:
		m.failed(ctx, r.step, r.err)
	}
}

func (m *machine) done(r result) {
	m.retry = retry{}
	run := m.rec.Run
	switch r.step {
	case stepRemove:
		m.dropVM()
		run.VM, run.ControlToken, run.Access = "", "", gateway.Access{}
		m.dirty = true
	case stepPrepare:
		if run.End == nil {
			m.prepared = true // told; the platform says when it is warm
			m.hearAnswer(r)
		}
	case stepBind:
		if run.End == nil {
			m.binding = bindDone
			m.hearAnswer(r)
		}
	case stepRelease:
		if run.End == nil && r.health.State == guestapi.StateReleased {
			m.hearAnswer(r) // it has the steps, too
		}
		if run.End == nil {
			m.end(fleet.PhaseReleased, nil)
		}
	}
}

// errNotBound: the platform reports that it was never bound to the machine, so the disk was never
// attached.
var errNotBound = errors.New("the platform was never bound")

func (m *machine) failed(ctx context.Context, s step, err error) {
	run := m.rec.Run
	switch {
	case s == stepRelease && errors.Is(err, errNotBound):
		m.end(fleet.PhaseReleased, nil)
	case s == stepRelease && errs.Is(err, errs.Fenced):
		m.end(fleet.PhaseFenced, err)
	case s == stepRelease:
		m.end(fleet.PhaseReleased, unclean(err.Error()))
	case s == stepRemove: // tried for as long as it takes
		m.retry.failed(s, time.Now())
		m.log.WarnContext(ctx, "remains of a vm could not be removed", "vm_id",
			string(run.VM), "error", err)
	case errs.Is(err, errs.Unavailable) &&
		m.retry.failed(s, time.Now()) < m.host.patient(m.host.cfg.StepTimeout) &&
		!isBootFailure(err):
		m.log.WarnContext(ctx, "step failed, will be tried again", "step", string(s), "error", err)
	default:
		m.end(fleet.PhaseFailed, err)
	}
}
