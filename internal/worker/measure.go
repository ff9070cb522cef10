package worker

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/tracing"
)

// waitKind is what of a machine is waited for.
type waitKind string

const (
	waitNone    waitKind = ""
	waitPrepare waitKind = "prepare" // until its VM is warm
	waitStart   waitKind = "start"   // until it is healthy
	waitRelease waitKind = "release" // until its disk is closed
)

// didRemember is the part of a wait in which the machine's record was made durable.
const didRemember = "remember"

// Bounds of what is kept of one wait. A VM tells whatever it likes.
const (
	mostSteps    = 96
	mostRequests = 64
	mostName     = 64 // bytes
)

// measured is the present wait of a machine, from the assignment that began it. A worker that was
// started meanwhile doesn't measure it.
type measured struct {
	kind     waitKind
	under    tracing.Context // none: nobody traces it
	began    time.Time
	own      []guestapi.Step // parts that the worker did itself
	told     []guestapi.Step // by the platform, as of its last word
	requests requestLog
}

// did notes a part that the worker did itself.
func (w *measured) did(name string, began, ended time.Time) {
	if w.kind == waitNone || len(w.own) == mostSteps {
		return
	}
	w.own = append(w.own, guestapi.Step{Name: name, Took: ended.Sub(began), By: partWorker,
		Ended: ended})
}

// hear takes in what the platform told of its steps at a time. Of a step that was told before it is
// known how much later it seems to have ended now: so late came this word.
func (w *measured) hear(told []guestapi.Step, at time.Time) {
	type key struct {
		name, of string
		took     time.Duration
	}
	keyOf := func(s guestapi.Step) key { return key{s.Name, s.Of, s.Took} }
	before, late := map[key]time.Time{}, time.Duration(0)
	for _, s := range w.told {
		before[keyOf(s)] = s.Ended
	}
	w.told = guestapi.HearSteps(told[max(0, len(told)-mostSteps):], at)
	for _, s := range w.told {
		if ended, ok := before[keyOf(s)]; ok && !ended.IsZero() && !s.Ended.IsZero() {
			late = max(late, s.Ended.Sub(ended))
		}
	}
	for i := range w.told {
		if !w.told[i].Ended.IsZero() {
			w.told[i].Ended = w.told[i].Ended.Add(-late)
		}
	}
}

// measureFrom begins to measure what a newly accepted assignment wants.
func (m *machine) measureFrom(old, a fleet.Assignment) {
	if a.Want == old.Want && a.Generation == old.Generation {
		return // of a machine that runs
	}
	kind := waitNone
	switch a.Want {
	case fleet.WantPrepared:
		kind = waitPrepare
	case fleet.WantRunning:
		kind = waitStart
	case fleet.WantReleased:
		kind = waitRelease
	case fleet.WantDiscarded:
	}
	m.measureTo("") // nobody waits for it any more
	m.measured.kind, m.measured.under, m.measured.began = kind, tracing.Parse(a.Trace), time.Now()
	m.measured.own = nil
	m.measured.requests.begin(m.traced())
}

func (m *machine) traced() bool {
	return m.host.deps.Traces != nil && m.measured.kind != waitNone && !m.measured.under.IsZero()
}

// measure ends a wait with the phase that ends it. An older run ends so that the one that is waited
// for can begin: that ends no wait.
func (m *machine) measure(p fleet.Phase) {
	kind, run := m.measured.kind, m.rec.Run
	if run.Generation != m.rec.Assignment.Generation {
		return
	}
	if t := m.task; t != nil && (p == fleet.PhaseHealthy && t.step == stepBind ||
		p == fleet.PhaseReleased && t.step == stepRelease) {
		// The platform tells what a task has come to, and only then does the task's answer come.
		m.measured.did(string(t.step), t.began, time.Now())
		t.measured = true
	}
	switch p {
	case fleet.PhasePrepared:
		if kind == waitPrepare {
			m.measureTo("")
		}
	case fleet.PhaseHealthy:
		if kind == waitStart {
			m.host.deps.Metrics.Started(m.parts())
			m.measureTo("")
		}
	case fleet.PhaseReleased, fleet.PhaseFailed, fleet.PhaseFenced:
		failed := ""
		if run.End != nil {
			failed = run.End.Error
		}
		if kind == waitRelease && failed == "" {
			m.host.deps.Metrics.Released(m.parts())
		}
		m.measureTo(failed)
	case fleet.PhaseEmpty, fleet.PhasePreparing, fleet.PhaseAttaching, fleet.PhaseStarting,
		fleet.PhaseRunning, fleet.PhaseStopping:
	}
}

// parts are those of the present wait: the worker's own, and what the platform tells of that ended
// in it. What it tells is cut to what anybody would believe.
func (m *machine) parts() []guestapi.Step {
	w := &m.measured
	parts, now := append([]guestapi.Step(nil), w.own...), time.Now()
	for _, s := range w.told {
		if s.Ended.IsZero() || s.Ended.Before(w.began) || s.Ended.After(now) || s.Took < 0 ||
			s.Took > now.Sub(w.began) {
			continue
		}
		s.Name, s.Of, s.By = short(s.Name), short(s.Of), short(s.By)
		parts = append(parts, s)
	}
	return parts
}

func short(name string) string { return name[:min(len(name), mostName)] }

// measureTo ends the present wait, and tells of it who traces. failed says why it did not come to
// its end, or "".
func (m *machine) measureTo(failed string) {
	if m.traced() {
		m.trace(failed)
	}
	m.measured.kind, m.measured.own = waitNone, nil
	m.measured.requests.begin(false)
}

// requested counts a request of the machine's VM that the store answered.
func (m *machine) requested(d decorate.Done) {
	m.host.deps.Metrics.Request(d)
	m.measured.requests.add(d)
}

// request is one request to the store.
type request struct {
	decorate.Done
	ended time.Time
}

// requestLog keeps the first requests of a wait, and counts the rest. Safe for concurrent use.
type requestLog struct {
	on atomic.Bool

	mu    sync.Mutex
	kept  []request
	more  int64
	total decorate.Counts
}

// begin drops what was kept, and keeps what comes if on.
func (l *requestLog) begin(on bool) {
	if !on && !l.on.Load() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.on.Store(on)
	l.kept, l.more, l.total = nil, 0, decorate.Counts{}
}

func (l *requestLog) add(d decorate.Done) {
	if !l.on.Load() {
		return
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total.Requests++
	l.total.BytesIn += int64(d.In)
	l.total.BytesOut += int64(d.Out)
	if len(l.kept) == mostRequests {
		l.more++
		return
	}
	l.kept = append(l.kept, request{Done: d, ended: now})
}

// take returns what was kept, how many were not, and the sums of all.
func (l *requestLog) take() (kept []request, more int64, total decorate.Counts) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.kept, l.more, l.total
}
