// Package metrics is what a server tells Prometheus of its fleet.
//
// Invariants: a move is counted once, by the server that ended it. What is, is asked of the
// control plane when somebody scrapes, so that nothing is kept twice. Figures of single workers
// are bounded in number; see MaxWorkers. Machines have none here: the worker that runs a machine
// tells them.
package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// Outcomes of a move.
const (
	outcomeDone   = "done"   // the machine is on another worker
	outcomeUndone = "undone" // it is where it was
	outcomeFailed = "failed" // no worker started it
)

// reasons of moves, as their records have them.
var reasons = []string{"drain", "migrate", "failover"}

// Moves counts moves that have ended. Safe for concurrent use.
type Moves struct {
	ended *prometheus.CounterVec
	took  *prometheus.HistogramVec
	steps *prometheus.HistogramVec
	pause prometheus.Histogram
}

// NewMoves makes the metrics in a registry.
func NewMoves(reg prometheus.Registerer) *Moves {
	f, buckets := promauto.With(reg), prometheus.ExponentialBuckets(0.01, 2, 15)
	m := &Moves{
		ended: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_moves_total",
			Help: "Moves that have ended, by reason and outcome: done, undone or failed.",
		}, []string{"reason", "outcome"}),
		took: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sluice_move_duration_seconds",
			Help:    "Time of a whole move, from its plan to its end.",
			Buckets: buckets,
		}, []string{"outcome"}),
		steps: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sluice_move_step_duration_seconds",
			Help: "Time from a move's step before until it reached this step.", Buckets: buckets,
		}, []string{"step"}),
		pause: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "sluice_move_pause_seconds",
			Help:    "Time for which a machine stood still, from telling its source to stop until it was healthy.",
			Buckets: buckets,
		}),
	}
	for _, outcome := range []string{outcomeDone, outcomeUndone, outcomeFailed} {
		for _, reason := range reasons { // a rate is to be seen from the first move on
			m.ended.WithLabelValues(reason, outcome)
		}
	}
	for _, s := range fleet.Steps()[1:] {
		m.steps.WithLabelValues(string(s))
	}
	m.took.WithLabelValues(outcomeDone)
	return m
}

// Ended counts a move that has ended.
func (m *Moves) Ended(mv fleet.Move) {
	outcome := outcomeDone
	switch {
	case mv.Step == fleet.StepUndone:
		outcome = outcomeUndone
	case mv.Error != "":
		outcome = outcomeFailed
	}
	m.ended.WithLabelValues(string(mv.Reason), outcome).Inc()
	m.took.WithLabelValues(outcome).Observe(mv.FinishedAt.Sub(mv.StartedAt).Seconds())
	for i := 1; i < len(mv.Steps); i++ {
		s := mv.Steps[i]
		m.steps.WithLabelValues(string(s.Step)).Observe(s.At.Sub(mv.Steps[i-1].At).Seconds())
	}
	if mv.PauseMS > 0 {
		m.pause.Observe(mv.PauseMS / 1000)
	}
}
