package worker

import (
	"cmp"
	"context"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/worker/gateway"
	"github.com/sluice-platform/sluice/internal/worker/pool"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// exitGrace is how long the worker waits, after a VM's end, for the platform's last message: the
// answer to a release, or an event that says why the VM ended.
const exitGrace = 100 * time.Millisecond

// machine is the actor of one machine on this worker.
type machine struct {
	id   fleet.MachineID
	host *Worker
	log  *slog.Logger
	wake chan struct{}

	mu        sync.Mutex
	offered   *fleet.Assignment // newest one that accept has not taken yet
	private   fleet.Private     // of the newest set; kept in memory only
	keyless   time.Time         // since when it waits for the keys of its disk; zero: it does not
	named     bool              // by the newest set of assignments
	pending   bool              // an accepted assignment isn't durable yet
	report    *fleet.VMReport   // nil: nothing to report
	gate      *gateway.Gateway  // of the VM; nil: none
	reachable *pool.VM          // where calls for the machine go; nil: it isn't running
	busy      bool              // it is being started or stopped
	steps     string            // the last step that the platform reports
	mark      startMark         // counts the progress of its start
	stale     bool              // the report is from before this worker was started
	silent    time.Time         // since when the platform hasn't answered; zero: it answers
	flushes   flushCount        // of the VM

	// The rest belongs to run.
	found     *pool.VM // by adopt, for resume
	rec       record
	dirty     bool // rec is newer than its file
	vm        *pool.VM
	vmEnd     <-chan struct{} // the VM's Done, until it was seen
	graceEnd  time.Time       // when exitGrace is over for an ended VM; zero: the VM runs
	gateStop  context.CancelFunc
	followEnd context.CancelFunc
	health    guestapi.Health // last heard of this VM
	heard     bool
	binding   binding
	prepared  bool // the platform was told to prepare
	releasing bool
	task      *task
	retry     retry
	waiting   bool            // for retry.at
	ctx       context.Context // of run
	results   chan result
	events    chan event
	group     *errgroup.Group
	measured  measured
}

// event is a report of the platform in a VM.
type event struct {
	vm     fleet.VMID
	health guestapi.Health
	at     time.Time // when it was heard
}

func newMachine(h *Worker, id fleet.MachineID, rec record) *machine {
	return &machine{
		id: id, host: h, rec: rec, named: true,
		log:     h.log.With("machine_id", string(id)),
		wake:    make(chan struct{}, 1),
		results: make(chan result, 1),
		events:  make(chan event, 1),
	}
}

// offer gives the actor its assignment of the newest set, with what is private; nil: the set
// doesn't name it.
func (m *machine) offer(a *fleet.Assignment, private fleet.Private) {
	m.mu.Lock()
	if a != nil {
		m.offered, m.pending, m.private = a, true, private
	}
	changed := a != nil || m.named
	m.named = a != nil
	m.mu.Unlock()
	if changed {
		m.nudge()
	}
}

func (m *machine) nudge() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// run drives the machine until ctx ends, which leaves its VM alone, or until it is forgotten.
func (m *machine) run(ctx context.Context) error {
	m.group, ctx = errgroup.WithContext(ctx)
	m.ctx = ctx
	m.group.Go(func() error { return m.loop(ctx) })
	err := m.group.Wait()
	if m.vm != nil {
		m.vm.Guest.Close()
	}
	return err
}

func (m *machine) loop(ctx context.Context) error {
	m.resume(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		m.accept(ctx)
		if m.drive(ctx) {
			m.stopFollowing()
			return nil // forgotten
		}
		m.publish()
		timer.Reset(m.untilTimer())
		select {
		case <-ctx.Done():
			return nil
		case <-m.wake:
		case r := <-m.results:
			m.finish(ctx, r)
		case e := <-m.events:
			m.hear(e)
		case <-m.vmEnd:
			m.vmEnd, m.graceEnd = nil, time.Now().Add(exitGrace)
		case <-timer.C:
			m.checkExit()
		}
	}
}

// untilTimer returns how long the loop may sleep without an event: until the exit grace or the
// pause before a retry is over.
func (m *machine) untilTimer() time.Duration {
	wait := time.Hour
	if !m.graceEnd.IsZero() && m.rec.Run != nil && m.rec.Run.End == nil {
		wait = min(wait, time.Until(m.graceEnd))
	}
	if m.waiting {
		wait = min(wait, m.retry.until())
	}
	return max(wait, 0)
}

// checkExit ends the run once a VM has ended and its exit grace is over.
func (m *machine) checkExit() {
	run := m.rec.Run
	if run == nil || run.End != nil || m.graceEnd.IsZero() || time.Now().Before(m.graceEnd) {
		return
	}
	how := "the VM ended by itself: " + m.vm.Status().Exit
	if since := m.silence(); !since.IsZero() {
		how += "; its platformd had been silent since " + since.UTC().Format(time.RFC3339)
	}
	m.vmGone(how)
}

// vmGone ends a run whose VM has ended without a report from its platform.
func (m *machine) vmGone(how string) {
	run := m.rec.Run
	switch {
	case run.Bound && (m.releasing || m.rec.Assignment.Want == fleet.WantReleased):
		m.end(fleet.PhaseReleased, unclean(how))
	default:
		m.end(fleet.PhaseFailed, errs.New(errs.Unavailable, "%s", how).
			WithRemedy("its disk is safe in the store; start the machine again"))
	}
}

// unclean returns the note on a run that was released without closing its disk.
func unclean(how string) error {
	return errs.New(errs.Unavailable,
		"unclean: %s; the disk is still open at its old epoch, and the next attach replays it", how)
}

// accept takes over the offered assignment, and refuses one of an older generation.
func (m *machine) accept(ctx context.Context) {
	m.mu.Lock()
	a := m.offered
	m.offered = nil
	m.mu.Unlock()
	if a == nil {
		return
	}
	old := m.rec.Assignment
	order := cmp.Compare(a.Generation, old.Generation)
	if order < 0 {
		m.log.WarnContext(ctx, "refused an older assignment", "generation", a.Generation,
			"seen_generation", old.Generation)
		return
	}
	// That a move has ended, and traces no more, is no news.
	if same := *a; order == 0 {
		same.Trace = old.Trace
		if reflect.DeepEqual(same, old) {
			return
		}
	}
	m.log.InfoContext(ctx, "accepted an assignment", "generation", a.Generation, "want",
		string(a.Want))
	m.rec.Assignment, m.rec.Forgotten, m.dirty = *a, time.Time{}, true
	m.retry = retry{}
	m.measureFrom(old, *a)
	if run := m.rec.Run; run != nil && order > 0 && m.carriesOver(run, old, *a) {
		run.Generation, run.Instance = a.Generation, a.Instance
	}
}

// carriesOver reports whether the run continues under a newer assignment: one that only ends it, or
// one for whose disk its VM has been prepared.
func (m *machine) carriesOver(run *machineRun, old, a fleet.Assignment) bool {
	if a.Want == fleet.WantReleased || a.Want == fleet.WantDiscarded {
		return true
	}
	return !run.Bound && run.End == nil && old.Disk == a.Disk
}

func (m *machine) situation() situation {
	m.mu.Lock()
	s := situation{want: m.rec.Assignment.Want, withdrawn: !m.named}
	m.mu.Unlock()
	s.forgotten = !m.rec.Forgotten.IsZero()
	run := m.rec.Run
	if run == nil {
		return s
	}
	a := m.rec.Assignment
	s.hasRun = true
	s.older = run.Generation != a.Generation
	s.hasVM, s.bound = run.VM != "", run.Bound
	s.binding, s.prepared, s.releasing = m.binding, m.prepared, m.releasing
	if run.End != nil {
		s.ended, s.endedWant, s.released = true, run.End.Want, run.Phase == fleet.PhaseReleased
	}
	return s
}

// hear updates the run by a report of its platform. It ignores reports of other VMs, and phases
// that the run has passed already.
func (m *machine) hear(e event) {
	m.countFlushes(e.vm, e.health.Flushes)
	run := m.rec.Run
	if run == nil || run.End != nil || run.VM != e.vm {
		return // of a VM that doesn't matter any more
	}
	h := e.health
	m.health, m.heard = h, true
	m.measured.hear(h.Steps, e.at)
	if !run.Bound {
		switch h.State {
		case guestapi.StateFailed:
			m.end(fleet.PhaseFailed, platformError(h))
		case guestapi.StatePrepared:
			m.prepared = true
			m.setPhase(fleet.PhasePrepared)
		default:
		}
		return
	}
	if h.Machine != "" && (h.Machine != m.id || h.Generation != run.BoundGeneration) {
		m.end(fleet.PhaseFailed, errs.New(errs.Internal,
			"VM %s says that it is machine %s at generation %d",
			run.VM, h.Machine, h.Generation))
		return
	}
	if h.State.Before(run.Phase) && m.binding != bindUnknown {
		return // sent before it was asked to stop: phases only advance
	}
	m.hearBound(run, h)
}

// hearAnswer updates the run by the state in a task's answer, unless the stream of events has
// already reported a later one.
func (m *machine) hearAnswer(r result) {
	if !m.heard || m.health.State.Before(r.health.State) {
		m.hear(event{vm: m.rec.Run.VM, health: r.health, at: r.ended})
	}
}

func (m *machine) hearBound(run *machineRun, h guestapi.Health) {
	switch h.State {
	case guestapi.StateEmpty, guestapi.StatePrepared:
		// an earlier worker recorded the bind and died before it sent it
		if m.binding == bindUnknown {
			m.binding = bindNeeded
		}
		return
	case guestapi.StateAttaching:
		m.setPhase(fleet.PhaseAttaching)
	case guestapi.StateStarting:
		m.setPhase(fleet.PhaseStarting)
	case guestapi.StateRunning:
		m.setPhase(fleet.PhaseRunning)
	case guestapi.StateHealthy:
		m.setPhase(fleet.PhaseHealthy)
	case guestapi.StateStopping:
		m.releasing = true
		m.setPhase(fleet.PhaseStopping)
	case guestapi.StateReleased:
		m.end(fleet.PhaseReleased, nil)
	case guestapi.StateFenced:
		m.end(fleet.PhaseFenced, platformError(h))
	case guestapi.StateFailed:
		m.end(fleet.PhaseFailed, platformError(h))
	}
	m.binding = bindDone
	for state, at := range h.Timeline {
		if !state.Before(fleet.PhaseAttaching) { // what came before isn't of a machine yet
			run.Timeline[state] = at
		}
	}
}

func platformError(h guestapi.Health) error {
	kind := errs.Kind(cmp.Or(h.ErrorKind, string(errs.Internal)))
	e := errs.New(kind, "%s", cmp.Or(h.Error, "the platform says "+string(h.State)+", and not why"))
	if h.Remedy != "" {
		e = e.WithRemedy("%s", h.Remedy)
	}
	return e
}
