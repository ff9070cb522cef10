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

// task is something under way that takes time.
type task struct {
	step        step
	cancel      context.CancelFunc
	interrupted bool
}

// result is how a task ended. claim is set by stepClaim.
type result struct {
	step   step
	err    error
	claim  *claim
	health guestapi.Health // by stepPrepare and stepBind
}

const (
	retryMin = 20 * time.Millisecond
	retryMax = 2 * time.Second
)

// retry spaces the attempts of one step.
type retry struct {
	step  step
	since time.Time // of the first failure in a row
	at    time.Time // next attempt
	wait  time.Duration
}

// failed notes a failure and reports for how long the step has only failed.
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

// drive does what is next until something has to be waited for. It reports whether the machine is
// forgotten. What is known is durable before anything is done that follows from it.
func (m *machine) drive(ctx context.Context) (forgotten bool) {
	m.waiting = false
	for {
		if m.dirty {
			m.publish() // what has happened already need not wait for the file
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
			m.start(ctx, s)
			return false
		}
		m.settle(s)
	}
}

// save makes the record durable; false: not yet, and it is tried again.
func (m *machine) save(ctx context.Context) bool {
	if m.retry.step == stepSave && m.retry.until() > 0 {
		return false
	}
	err := m.host.records.save(m.id, m.rec)
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

// settle does a step that takes no time.
func (m *machine) settle(s step) {
	l := m.rec.Life
	switch s {
	case stepReset:
		m.begin()
	case stepIntend:
		l.Bound, l.BoundGeneration, l.Instance = true, l.Generation, m.rec.Assignment.Instance
		l.Access.Token, l.Access.Writable, l.Access.Generation = pool.NewToken(accessTokenBytes),
			true, l.Generation
		m.binding, m.dirty = bindNeeded, true
		m.reach(fleet.PhaseAttaching)
	case stepDrop:
		m.end(fleet.PhaseReleased, m.dropNote())
	case stepDiscard:
		m.end(fleet.PhaseReleased, errs.New(errs.Unavailable, "discarded without closing the disk"))
	case stepLost:
		m.ended("the VM was gone when the worker looked for it")
	case stepSettle:
		m.settleRelease()
	}
}

// dropNote says what a life that never had the disk leaves behind: nothing, if this worker knows
// so.
func (m *machine) dropNote() error {
	l := m.rec.Life
	if l.VM == "" && l.Phase == "" && m.rec.Assignment.Want == fleet.WantReleased {
		return unclean("no VM of it is here, and nothing is known of one")
	}
	return nil
}

// settleRelease answers a wish to release what has ended otherwise: there's nothing left to close
// here.
func (m *machine) settleRelease() {
	l := m.rec.Life
	if l.Bound && l.End.Error != "" {
		l.End.Error = unclean(l.End.Error).Error()
		l.End.ErrorKind = string(errs.Unavailable)
	} else {
		*l.End = ending{Want: l.End.Want}
	}
	m.reach(fleet.PhaseReleased)
}

const accessTokenBytes = 24

// begin starts a new life under the newest assignment.
func (m *machine) begin() {
	a := m.rec.Assignment
	m.rec.Life = &life{
		Generation: a.Generation, Instance: a.Instance,
		Timeline: map[fleet.Phase]time.Time{}, Since: m.host.now(),
	}
	m.health, m.heard = guestapi.Health{}, false
	m.binding, m.prepared, m.releasing = bindUnknown, false, false
	m.retry, m.dirty = retry{}, true
	if a.Want == fleet.WantPrepared || a.Want == fleet.WantRunning {
		m.reach(fleet.PhasePreparing)
	}
}

// reach notes a phase.
func (m *machine) reach(p fleet.Phase) {
	l := m.rec.Life
	if l.Phase == p {
		return
	}
	l.Phase, l.Since = p, m.host.now()
	if _, ok := l.Timeline[p]; !ok {
		l.Timeline[p] = l.Since
	}
	switch p {
	case fleet.PhaseRunning, fleet.PhaseHealthy, fleet.PhaseReleased, fleet.PhaseFailed,
		fleet.PhaseFenced:
		m.dirty = true // what a restarted worker should know before the platform has answered it
	case fleet.PhaseEmpty, fleet.PhasePreparing, fleet.PhasePrepared, fleet.PhaseAttaching,
		fleet.PhaseStarting, fleet.PhaseStopping:
	}
	m.log.Info("machine reached a phase", "phase", string(p), "generation", l.Generation,
		"vm_id", string(l.VM))
}

// end ends the life: its token is dead from here on, and its gateway closed. What its VM may still
// ask for until it is removed, above all ahead of time, reaches nobody.
func (m *machine) end(p fleet.Phase, cause error) {
	l := m.rec.Life
	l.End = &ending{Want: m.rec.Assignment.Want}
	if cause != nil {
		l.End.ErrorKind, l.End.Error, l.End.Remedy = string(errs.KindOf(cause)), cause.Error(),
			errs.RemedyOf(cause)
		m.log.Warn("machine ended", "phase", string(p), "generation", l.Generation, "vm_id",
			string(l.VM), "error", cause)
	}
	if m.gate != nil {
		m.gate.Revoke()
		l.Disk = m.diskReport()
	}
	m.closeGate()
	m.stopFollowing()
	m.reach(p)
	m.dirty, m.retry = true, retry{}
}

// forget drops what is known of the machine but its generation; false: not yet.
func (m *machine) forget(ctx context.Context) bool {
	m.rec.Life, m.rec.Forgotten, m.dirty = nil, m.host.now(), true
	if m.waiting = !m.save(ctx); m.waiting {
		return false
	}
	return m.host.forget(m)
}

// finish takes in how a task ended.
func (m *machine) finish(ctx context.Context, r result) {
	t := m.task
	m.task = nil
	if r.claim != nil {
		m.take(r.claim) // even if interrupted: the VM is ours now
	}
	switch {
	case ctx.Err() != nil, m.rec.Life == nil:
	case r.err == nil:
		m.done(r)
	case t.interrupted:
	case m.rec.Life.End != nil && r.step != stepRemove: // it ended meanwhile
	default:
		m.failed(ctx, r.step, r.err)
	}
}

func (m *machine) done(r result) {
	m.retry = retry{}
	l := m.rec.Life
	switch r.step {
	case stepRemove:
		m.dropVM()
		l.VM, l.ControlToken, l.Access = "", "", gateway.Access{}
		m.dirty = true
	case stepPrepare:
		if l.End == nil {
			m.prepared = true // told; the platform says when it is warm
			m.hearAnswer(r.health)
		}
	case stepBind:
		if l.End == nil {
			m.binding = bindDone
			m.hearAnswer(r.health)
		}
	case stepRelease:
		if l.End == nil {
			m.end(fleet.PhaseReleased, nil)
		}
	}
}

// errNotBound: the platform says that it never was the machine, so its disk was never attached.
var errNotBound = errors.New("the platform was never bound")

func (m *machine) failed(ctx context.Context, s step, err error) {
	l := m.rec.Life
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
			string(l.VM), "error", err)
	case errs.Is(err, errs.Unavailable) &&
		m.retry.failed(s, time.Now()) < m.host.patient(m.host.cfg.StepTimeout) &&
		!isBootFailure(err):
		m.log.WarnContext(ctx, "step failed, will be tried again", "step", string(s), "error", err)
	default:
		m.end(fleet.PhaseFailed, err)
	}
}
