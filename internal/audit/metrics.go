package audit

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Watch has scrapes ask the log how it is.
func Watch(reg prometheus.Registerer, l *Log) error { return reg.Register(&collector{log: l}) }

type collector struct{ log *Log }

func desc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("sluice_audit_"+name, help, nil, nil)
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, out) }

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := c.log.Status()
	tell := func(name, help string, kind prometheus.ValueType, value float64) {
		out <- prometheus.MustNewConstMetric(desc(name, help), kind, value)
	}
	stuck := 0.0
	if !s.Since.IsZero() {
		stuck = time.Since(s.Since).Seconds()
	}
	tell("spool_bytes", "What waits on the server's disk for the store to take it.",
		prometheus.GaugeValue, float64(s.SpoolBytes))
	tell("spool_limit_bytes", "Beyond it changes are refused.", prometheus.GaugeValue,
		float64(s.SpoolLimit))
	tell("stuck_seconds", "Time for which the store has taken nothing; 0: it does.",
		prometheus.GaugeValue, stuck)
	tell("entries_total", "Calls that were recorded.", prometheus.CounterValue,
		float64(s.Entries))
	tell("refused_total", "Calls that were refused because the audit log had no room.",
		prometheus.CounterValue, float64(s.Refused))
}
