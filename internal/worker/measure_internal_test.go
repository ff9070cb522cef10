package worker

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/tracing"
)

const msec = time.Millisecond

// TestStepsAreHeardByTheFastestWord: a word that comes late says of the steps that it repeats how
// late it is, and those that are new in it are put right by that.
func TestStepsAreHeardByTheFastestWord(t *testing.T) {
	at := time.Now()
	step := func(name string, ago time.Duration) guestapi.Step {
		return guestapi.Step{Name: name, Took: msec, Ago: ago}
	}
	var w measured
	w.hear([]guestapi.Step{step("attach", 1)}, at)
	// Said 10 ms later, and heard 60 ms later.
	w.hear([]guestapi.Step{step("attach", 10*msec), step("mount", 2*msec),
		{Name: "of an older platform", Took: msec}}, at.Add(60*msec))
	if got := w.told[1].Ended.Sub(at); got < 7*msec || got > 9*msec {
		t.Errorf("mount ended %v after attach, want 8 ms", got)
	}
	if !w.told[2].Ended.IsZero() {
		t.Error("of a step that doesn't tell when it ended, it is known")
	}
}

// TestAnAnswerIsHeardWhenItCame: however long the worker was at something else before it took it
// in, the steps in it ended when they did.
func TestAnAnswerIsHeardWhenItCame(t *testing.T) {
	w := &Worker{log: slog.New(slog.DiscardHandler), deps: Deps{Now: time.Now}}
	m := newMachine(w, "m", record{Run: &machineRun{VM: "vm",
		Timeline: map[fleet.Phase]time.Time{}}})
	came := time.Now().Add(-time.Minute)
	m.hearAnswer(result{ended: came, health: guestapi.Health{State: guestapi.StatePrepared,
		Steps: []guestapi.Step{{Name: "disk prepare", Took: msec, Ago: msec}}}})
	if ended := m.measured.told[0].Ended; !ended.Equal(came.Add(-msec)) {
		t.Errorf("it ended %v after the answer", ended.Sub(came))
	}
}

// TestAHostileVMTellsOfSteps: a wait takes no more of it than anybody would believe.
func TestAHostileVMTellsOfSteps(t *testing.T) {
	m := &machine{}
	m.measured.kind, m.measured.began = waitStart, time.Now().Add(-time.Second)
	long := strings.Repeat("x", 5000)
	told := []guestapi.Step{
		{Name: "before", Took: msec, Ago: time.Hour}, {Name: "longer", Took: time.Hour, Ago: 1},
		{Name: "negative", Took: -msec, Ago: 1}, {Name: "later", Took: msec, Ago: -time.Hour},
		{Name: long, Of: long, By: long, Took: msec, Ago: 1}}
	for range 1000 {
		told = append(told, guestapi.Step{Name: "one of many", Took: msec, Ago: 1})
	}
	m.measured.hear(told[:5], time.Now())
	parts := m.parts()
	if len(parts) != 1 || len(parts[0].Name+parts[0].Of+parts[0].By) != 3*mostName {
		t.Errorf("%d parts are believed: %.200v", len(parts), parts)
	}
	m.measured.hear(told, time.Now())
	if n := len(m.parts()); n != mostSteps {
		t.Errorf("%d parts are kept", n)
	}
}

func TestPartsHaveTheirPlace(t *testing.T) {
	at := time.Now()
	part := func(name, of string, from, to time.Duration) guestapi.Step {
		return guestapi.Step{Name: name, Of: of, Took: to - from, Ended: at.Add(to)}
	}
	whole := placed{at: tracing.Of("id", "start"), start: at, end: at.Add(100 * msec)}
	all := map[string]placed{}
	for _, p := range place([]guestapi.Step{
		part("attach", "bring up", 0, 5*msec),        // the first try of two
		part("attach", "bring up", 30*msec, 44*msec), // told a little late
		part("read head", "attach", 38*msec, 43*msec),
		part("mount", "bring up", 20*msec, 29*msec),
		part("bring up", "", -msec, 40*msec),
		part("orphan", "nothing", 50*msec, 110*msec),
		part("hen", "egg", 60*msec, 70*msec), part("egg", "hen", 61*msec, 69*msec), // it lies
	}, whole) {
		if p.name != "attach" || p.end.After(at.Add(5*msec)) {
			all[p.name] = p
		}
	}
	all["whole"] = whole
	for name, want := range map[string]string{"attach": "bring up", "read head": "attach",
		"mount": "bring up", "bring up": "whole", "orphan": "whole", "hen": "whole", "egg": "hen"} {
		p, above := all[name], all[want]
		if p.parent != above.at {
			t.Errorf("%s is under another part than %s", name, want)
		}
		if p.start.Before(above.start) || p.end.After(above.end) || p.end.Before(p.start) {
			t.Errorf("%s sticks out of %s", name, want)
		}
	}
}

func TestRequestsOfAWaitAreBounded(t *testing.T) {
	var l requestLog
	l.add(decorate.Done{})
	l.begin(true)
	for range mostRequests + 3 {
		l.add(decorate.Done{In: 2, Out: 1})
	}
	kept, more, total := l.take()
	if len(kept) != mostRequests || more != 3 || total.Requests != mostRequests+3 ||
		total.BytesIn != 2*(mostRequests+3) {
		t.Errorf("%d are kept, %d are not, sums %+v", len(kept), more, total)
	}
	l.begin(false)
	l.add(decorate.Done{})
	if kept, _, total := l.take(); len(kept) > 0 || total.Requests > 0 {
		t.Error("requests are kept though nothing is waited for")
	}
}

// TestTheEndOfATraceIsNoNews: that a move traces no more changes an assignment that is kept.
func TestTheEndOfATraceIsNoNews(t *testing.T) {
	m := newMachine(&Worker{log: slog.New(slog.DiscardHandler)}, "m", record{})
	m.rec = record{Assignment: fleet.Assignment{Machine: "m", Generation: 3,
		Want: fleet.WantRunning, Trace: "00-1-2-01"}}
	m.offer(&fleet.Assignment{Machine: "m", Generation: 3, Want: fleet.WantRunning},
		fleet.Private{})
	m.accept(t.Context())
	if m.dirty || m.rec.Assignment.Trace == "" {
		t.Error("a machine that runs is written down again")
	}
}
