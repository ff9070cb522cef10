// Package traces tells of a move's steps as a trace.
//
// Invariants: a move's trace and its first spans have ids that follow from the move's own, so that
// workers, and a server that was started again, put theirs into the same trace. It is told once,
// by the server that ended the move, from the times in the move's record.
package traces

import (
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/tracing"
)

// Names of spans under which others are put.
const (
	SpanMove  = "move"
	SpanPause = "pause" // of the machine: from telling its source to stop until it is healthy
)

const part = "server"

// Under returns the span of a move under which a worker puts what it does for an assignment; none
// for one with which the move has nothing to do.
func Under(mv fleet.Move, want fleet.Want) tracing.Context {
	switch want {
	case fleet.WantPrepared:
		return tracing.Of(string(mv.ID), SpanMove)
	case fleet.WantRunning, fleet.WantReleased:
		switch {
		case mv.Step.SourceRuns():
			return tracing.Context{}
		case mv.Reached(fleet.StepStopping).IsZero(): // a failover tells no source to stop
			return tracing.Of(string(mv.ID), SpanMove)
		}
		return tracing.Of(string(mv.ID), SpanPause)
	case fleet.WantDiscarded:
	}
	return tracing.Context{}
}

// Ended tells of a move that has ended. The span of a step goes from the step before until it was
// reached.
func Ended(t *tracing.Tracer, mv fleet.Move) {
	move, pause := tracing.Of(string(mv.ID), SpanMove), tracing.Of(string(mv.ID), SpanPause)
	t.Tell(tracing.Span{At: move, Part: part, Name: SpanMove, Start: mv.StartedAt,
		End: mv.FinishedAt, Err: mv.Error, Attributes: attributes(mv)})
	first, last := paused(mv.Steps)
	if first < last {
		start, end := mv.Steps[first].At, mv.Steps[last].At
		if mv.PauseMS > 0 {
			end = start.Add(time.Duration(mv.PauseMS * float64(time.Millisecond)))
		}
		t.Tell(tracing.Span{At: pause, Parent: move, Part: part, Name: SpanPause,
			Start: start, End: end})
	}
	for i := 1; i < len(mv.Steps); i++ {
		s, parent := mv.Steps[i], move
		if first < i && i <= last {
			parent = pause
		}
		span := tracing.Span{At: tracing.Context{Trace: move.Trace}, Parent: parent, Part: part,
			Name: string(s.Step), Start: mv.Steps[i-1].At, End: s.At}
		if s.Note != "" {
			span.Attributes = append(span.Attributes, tracing.Attr("note", s.Note))
		}
		t.Tell(span)
	}
}

// paused returns the steps between which the machine stood still, as their places in the list; the
// same twice if it never did.
func paused(steps []fleet.StepRecord) (first, last int) {
	first = slices.IndexFunc(steps, func(s fleet.StepRecord) bool {
		return s.Step == fleet.StepStopping
	})
	if first < 0 {
		return 0, 0
	}
	last = first
	for i := first + 1; i < len(steps) && (steps[last].Step.StandsStill()); i++ {
		last = i
	}
	return first, last
}

func attributes(mv fleet.Move) []attribute.KeyValue {
	all := []attribute.KeyValue{
		tracing.Attr("move", string(mv.ID)), tracing.Attr("machine", string(mv.Machine)),
		tracing.Attr("network", string(mv.Network)), tracing.Attr("reason", string(mv.Reason)),
		tracing.Attr("from", string(mv.From)), tracing.Attr("to", string(mv.To)),
		tracing.Attr("step", string(mv.Step)),
	}
	if mv.Drain != "" {
		all = append(all, tracing.Attr("drain", string(mv.Drain)))
	}
	return all
}
