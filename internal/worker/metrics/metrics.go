// Package metrics is what a worker tells Prometheus.
//
// Invariants: what happens is counted when it happens. What is, is asked for when somebody
// scrapes, so that nothing is kept twice. Figures of single machines are bounded in number; see
// MaxMachines.
package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/x/expose"
)

// Metrics counts what happens on a worker. Safe for concurrent use.
type Metrics struct {
	reg          prometheus.Registerer
	requests     *prometheus.CounterVec
	took         *prometheus.HistogramVec
	bytes        *prometheus.CounterVec
	refused      prometheus.Counter
	boots        prometheus.Histogram
	bootFailures prometheus.Counter
	starts       *prometheus.HistogramVec
	releases     *prometheus.HistogramVec
}

// The directions of bytes.
const (
	read    = "read"
	written = "written"
)

// New registers the metrics in reg; nil: they count, and nothing exposes them.
func New(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	m := &Metrics{
		reg: reg,
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_gateway_requests_total",
			Help: "Requests of VMs that the store answered, by result: ok, or the kind of the error.",
		}, []string{"operation", "result"}),
		took: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sluice_gateway_request_duration_seconds",
			Help:    "Time the store took for a request of a VM.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}, []string{"operation"}),
		bytes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_gateway_bytes_total",
			Help: "Bytes that VMs read from the store and wrote to it, by requests that succeeded.",
		}, []string{"direction"}),
		refused: f.NewCounter(prometheus.CounterOpts{
			Name: "sluice_gateway_refused_total",
			Help: "Requests of VMs that the gateway refused without asking the store.",
		}),
		boots: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "sluice_pool_boot_duration_seconds",
			Help:    "Time from the start of a VM until it answers.",
			Buckets: prometheus.ExponentialBuckets(0.05, 2, 13),
		}),
		bootFailures: f.NewCounter(prometheus.CounterOpts{
			Name: "sluice_pool_boot_failures_total", Help: "VMs that did not come up.",
		}),
	}
	for _, op := range []decorate.Op{
		decorate.OpGet, decorate.OpList, decorate.OpPutIfAbsent, decorate.OpPutIfMatch,
	} { // all that a gateway lets through: a rate is to be seen from the first request on
		m.requests.WithLabelValues(string(op), expose.Result(nil))
		m.took.WithLabelValues(string(op))
	}
	m.addSteps(f)
	m.bytes.WithLabelValues(read)
	m.bytes.WithLabelValues(written)
	return m
}

// Request counts a request of a VM that the store answered.
func (m *Metrics) Request(d decorate.Done) {
	m.requests.WithLabelValues(string(d.Op), expose.Result(d.Err)).Inc()
	m.took.WithLabelValues(string(d.Op)).Observe(d.Took.Seconds())
	m.bytes.WithLabelValues(read).Add(float64(d.Out))
	m.bytes.WithLabelValues(written).Add(float64(d.In))
}

// Refused counts a request that the gateway refused.
func (m *Metrics) Refused() { m.refused.Inc() }

// Booted counts a boot that has ended, with err if it failed.
func (m *Metrics) Booted(took time.Duration, err error) {
	if err != nil {
		m.bootFailures.Inc()
		return
	}
	m.boots.Observe(took.Seconds())
}
