package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/sluice-platform/sluice/internal/guestapi"
)

// Steps of a start that the worker itself takes.
const (
	StepClaim = "claim" // of a VM: out of the pool, or once one has booted
	StepBind  = "bind"  // limits, the network, and telling the platform who it is
)

// startLabels and releaseLabels are the steps that have figures, and their labels. A VM may tell of
// any others, and as many as it likes: those are not counted.
var (
	startLabels = map[string]string{
		StepClaim: "boot", StepBind: "bind", guestapi.StepAttach: "attach",
		guestapi.StepConnect: "connect", guestapi.StepMount: "mount", guestapi.StepGrow: "grow",
		guestapi.StepContainer: "container", guestapi.StepServices: "service",
		guestapi.StepChecks: "check",
	}
	releaseLabels = map[string]string{
		guestapi.StepStop: "services", guestapi.StepKill: "container",
		guestapi.StepUnmount: "unmount", guestapi.StepClose: "close",
	}
)

func (m *Metrics) addSteps(f promauto.Factory) {
	buckets := prometheus.ExponentialBuckets(0.001, 2, 17) // up to a minute
	m.starts = f.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "sluice_worker_start_step_seconds",
		Help:    "Time that a step took of a machine's start that ended healthy.",
		Buckets: buckets,
	}, []string{"step"})
	m.releases = f.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "sluice_worker_release_step_seconds",
		Help:    "Time that a step took of a machine's stop that ended with its disk closed.",
		Buckets: buckets,
	}, []string{"step"})
	for _, label := range startLabels {
		m.starts.WithLabelValues(label)
	}
	for _, label := range releaseLabels {
		m.releases.WithLabelValues(label)
	}
}

// Started counts the steps of a start.
func (m *Metrics) Started(steps []guestapi.Step) { observe(m.starts, startLabels, steps) }

// Released counts the steps of a machine's stop.
func (m *Metrics) Released(steps []guestapi.Step) { observe(m.releases, releaseLabels, steps) }

func observe(to *prometheus.HistogramVec, labels map[string]string, steps []guestapi.Step) {
	for _, s := range steps {
		if label, ok := labels[s.Name]; ok {
			to.WithLabelValues(label).Observe(s.Took.Seconds())
		}
	}
}
