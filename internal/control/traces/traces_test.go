package traces_test

import (
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/control/traces"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/tracing"
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
