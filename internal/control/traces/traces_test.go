package traces_test

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-platform/sluice/internal/control/traces"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/tracing"
	"github.com/sluice-platform/sluice/test/otlptest"
)

// TestUnder: what a worker does is put under a span that the server tells, also if the server was
// started again meanwhile.
func TestUnder(t *testing.T) {
	at := func(steps ...fleet.Step) fleet.Move {
		mv := fleet.Move{ID: "01JZ", Step: steps[len(steps)-1]}
		for _, s := range steps {
			mv.Steps = append(mv.Steps, fleet.StepRecord{Step: s, At: time.Now()})
		}
		return mv
	}
	move, pause := tracing.Of("01JZ", traces.SpanMove), tracing.Of("01JZ", traces.SpanPause)
	for _, c := range []struct {
		name string
		mv   fleet.Move
		want fleet.Want
		span tracing.Context
	}{
		{"the target warms up", at(fleet.StepLocked), fleet.WantPrepared, move},
		{"the source runs on", at(fleet.StepPrepared), fleet.WantRunning, tracing.Context{}},
		{"the source stops", at(fleet.StepPrepared, fleet.StepStopping), fleet.WantReleased, pause},
		{"the target starts", at(fleet.StepStopping, fleet.StepReleased, fleet.StepCommitted),
			fleet.WantRunning, pause},
		{"a failover", at(fleet.StepPlanned, fleet.StepReleased, fleet.StepCommitted),
			fleet.WantRunning, move},
		{"the source takes it back", at(fleet.StepStopping, fleet.StepReleased,
			fleet.StepUndoing), fleet.WantRunning, pause},
		{"left over elsewhere", at(fleet.StepStopping, fleet.StepCommitted), fleet.WantDiscarded,
			tracing.Context{}},
	} {
		if got := traces.Under(c.mv, c.want); got != c.span {
			t.Errorf("%s: under %s, want %s", c.name, got, c.span)
		}
	}
}

// TestEnded tells of moves that went other ways than to their target: each step is under the pause
// if the machine stood still before it, and what comes before and after it is not.
func TestEnded(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps string
		pause string // the steps under it, "": there is none
	}{
		{"undone before the stop", "planned reserved locked undone", ""},
		{"failover", "planned reserved locked released committed healthy unlocked done", ""},
		{"put back", "planned locked prepared stopping released undoing undone",
			"released undoing undone"},
		{"another target", "locked stopping released committed attached committed healthy unlocked",
			"released committed attached committed healthy"},
	} {
		collector := otlptest.Start(t, listen(t))
		tracer, err := tracing.New(t.Context(), tracing.Config{Service: "test",
			Endpoint: collector.URL, Metrics: prometheus.NewRegistry(),
			Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		mv := fleet.Move{ID: "01JZ", StartedAt: time.Now().Add(-time.Minute), Error: "why"}
		for i, s := range strings.Fields(c.steps) {
			mv.Step = fleet.Step(s)
			mv.Steps = append(mv.Steps, fleet.StepRecord{Step: mv.Step, Note: "note",
				At: mv.StartedAt.Add(time.Duration(i) * time.Second)})
		}
		mv.FinishedAt = mv.Steps[len(mv.Steps)-1].At
		traces.Ended(tracer, mv)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := tracer.Run(ended); err != nil { // exports what is left
			t.Fatal(err)
		}
		all, others := collector.Traces()
		trace := all["01JZ"]
		var paused []string
		for _, s := range trace {
			above, ok := trace.Parent(s)
			if ok && above.Name == traces.SpanPause {
				paused = append(paused, s.Name)
			}
			if ok && (s.Start.Before(above.Start) || s.End.After(above.End)) {
				t.Errorf("%s: %s is not within %s", c.name, s.Name, above.Name)
			}
			if ok == (s.Name == traces.SpanMove) || s.Failed != (s.Name == traces.SpanMove) {
				t.Errorf("%s: %s is at the wrong place, or failed: %v", c.name, s.Name, s.Failed)
			}
		}
		if n := len(trace.Find("server", traces.SpanPause)); (n == 1) != (c.pause != "") {
			t.Errorf("%s: %d pauses", c.name, n)
		}
		if got := strings.Join(paused, " "); got != c.pause || len(others) > 0 {
			t.Errorf("%s: in the pause were %q, want %q; others: %v", c.name, got, c.pause, others)
		}
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}
