package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// flushDescs are the metrics of flushes.
type flushDescs struct {
	flushes, flushWaits, dirty                               *prometheus.Desc // of the worker
	diskDirty, diskFlushes, diskFlushSeconds, diskFlushWaits *prometheus.Desc // of one machine
}

func newFlushDescs() flushDescs {
	const machine, wait = "machine", "wait"
	return flushDescs{
		flushes: desc("sluice_worker_disk_flush_duration_seconds",
			"Time that flushes of machines' disks took."),
		flushWaits: desc("sluice_worker_disk_flush_wait_seconds",
			"Parts of the time that flushes took, by what they waited for. "+
				"A flush that wrote nothing isn't counted.", wait),
		dirty: desc("sluice_worker_disk_dirty_bytes",
			"Bytes that machines wrote and their store doesn't have yet."),
		diskDirty: desc("sluice_disk_dirty_bytes",
			"Bytes that the machine wrote and its store doesn't have yet.", machine),
		diskFlushes: desc("sluice_disk_flushes_total",
			"Flushes of the machine's disk since it was attached.", machine),
		diskFlushSeconds: desc("sluice_disk_flush_seconds_total",
			"Time that flushes of the machine's disk took since it was attached.", machine),
		diskFlushWaits: desc("sluice_disk_flush_wait_seconds_total",
			"Parts of that time, by what flushes waited for.", machine, wait),
	}
}

// worker tells the flushes of all disks.
func (d *flushDescs) worker(out chan<- prometheus.Metric, f *Figures) {
	var dirty int64
	for _, x := range f.FlushesOf {
		dirty += x.DirtyBytes
	}
	out <- prometheus.MustNewConstMetric(d.dirty, prometheus.GaugeValue, float64(dirty))
	out <- histogram(d.flushes, f.Flushes.Times)
	for _, wait := range fleet.FlushWaits() {
		out <- histogram(d.flushWaits, f.Flushes.Waits[wait], wait)
	}
}

// disk tells the flushes of one machine's disk.
func (d *flushDescs) disk(out chan<- prometheus.Metric, machine string, f *fleet.DiskFlushes) {
	tell := func(d *prometheus.Desc, t prometheus.ValueType, x float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, t, x, append([]string{machine}, labels...)...)
	}
	tell(d.diskDirty, prometheus.GaugeValue, float64(f.DirtyBytes))
	tell(d.diskFlushes, prometheus.CounterValue, float64(f.Times.Count()))
	tell(d.diskFlushSeconds, prometheus.CounterValue, f.Times.Sum.Seconds())
	for _, wait := range fleet.FlushWaits() {
		tell(d.diskFlushWaits, prometheus.CounterValue, f.Waits[wait].Sum.Seconds(), wait)
	}
}

// The buckets that are told, of those that are counted: from 0.26 ms up to 34 s.
const firstBucket, lastBucket = 8, 25

func histogram(d *prometheus.Desc, x fleet.Durations, labels ...string) prometheus.Metric {
	cumulative := map[float64]uint64{}
	for i := firstBucket; i <= lastBucket; i++ {
		upTo := fleet.Durations{Buckets: x.Buckets[:min(i+1, len(x.Buckets))]}
		cumulative[(time.Microsecond << i).Seconds()] = upTo.Count()
	}
	return prometheus.MustNewConstHistogram(d, x.Count(), x.Sum.Seconds(), cumulative, labels...)
}
