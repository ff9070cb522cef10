package metrics

import (
	"cmp"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// MaxMachines bounds the machines that have figures of their own on one worker. Those beyond are
// counted by sluice_machines_left_out. Machines whose disk is stalled come first, then those that
// aren't healthy.
const MaxMachines = 100

// Figures is a worker's state at one scrape.
type Figures struct {
	VMs                                []fleet.VMReport
	Conditions                         []fleet.Condition
	PoolReady, PoolBooting, PoolWanted int
	Pressure                           *fleet.Pressure // nil: not known
	StoreKeyExpires                    time.Time       // zero: never
	// Flushes is of all disks since the worker was started; FlushesOf of each that is attached now.
	Flushes   fleet.DiskFlushes
	FlushesOf map[fleet.VMID]fleet.DiskFlushes
}

// Watch calls figures at each scrape.
func (m *Metrics) Watch(figures func() Figures) error {
	if m.reg == nil {
		return nil
	}
	return m.reg.Register(&collector{figures: figures})
}

type collector struct{ figures func() Figures }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// descs are the metrics of a collector.
type descs struct {
	poolVMs, poolWanted, vms, condition, pressure, stalled, paused, leftOut        *prometheus.Desc
	stalledSeconds, diskRequests, diskRead, diskWritten, healthy, outOfMemoryKills *prometheus.Desc
	diskStored, diskQuota, storeKeyExpires                                         *prometheus.Desc
	flushDescs
}

func newDescs() descs {
	const machine = "machine"
	return descs{
		poolVMs: desc("sluice_pool_vms", "Empty VMs of the pool, by state: ready or booting.",
			"state"),
		poolWanted: desc("sluice_pool_wanted_vms", "Empty VMs that the pool shall keep ready."),
		vms:        desc("sluice_worker_vms", "Machines on this worker, by phase.", "phase"),
		condition: desc("sluice_worker_condition",
			"1 for each condition that the worker reports of itself.", "condition"),
		pressure: desc("sluice_worker_pressure_ratio",
			"Share of the last ten seconds in which work on this host waited, by resource.",
			"resource"),
		storeKeyExpires: desc("sluice_worker_store_credentials_expiry_timestamp_seconds",
			"When the credentials of the store that the worker has expire; absent: never."),
		stalled: desc("sluice_disks_stalled", "Disks of machines here whose store has stalled."),
		paused: desc("sluice_machines_paused",
			"Machines here that are frozen until their store is back."),
		leftOut: desc("sluice_machines_left_out",
			"Machines here beyond the bound, without figures of their own."),
		stalledSeconds: desc("sluice_disk_stalled_seconds",
			"For how long the machine's store has stalled; 0: it has not.", machine),
		diskRequests: desc("sluice_disk_requests_total",
			"Requests of the machine's disk to its store.",
			machine),
		diskRead: desc("sluice_disk_read_bytes_total",
			"Bytes that the machine's disk read from its store.", machine),
		diskWritten: desc("sluice_disk_written_bytes_total",
			"Bytes that the machine's disk wrote to its store.", machine),
		diskStored: desc("sluice_disk_stored_bytes",
			"What the machine's disk has in its store, garbage included.", machine),
		diskQuota: desc("sluice_disk_quota_bytes",
			"What the machine's disk may have in its store before the machine is paused.", machine),
		healthy: desc("sluice_machine_healthy",
			"1 while the machine runs and each of its services is ready.", machine),
		outOfMemoryKills: desc("sluice_machine_out_of_memory_kills_total",
			"Processes of the machine killed for lack of memory.", machine),
		flushDescs: newFlushDescs(),
	}
}

// Describe implements prometheus.Collector. The set of metrics isn't fixed, so nothing is
// described.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	f, d := c.figures(), newDescs()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(d.poolVMs, float64(f.PoolReady), "ready")
	gauge(d.poolVMs, float64(f.PoolBooting), "booting")
	gauge(d.poolWanted, float64(f.PoolWanted))
	for _, x := range f.Conditions {
		gauge(d.condition, 1, string(x.Name))
	}
	if at := f.StoreKeyExpires; !at.IsZero() {
		gauge(d.storeKeyExpires, float64(at.Unix()))
	}
	if p := f.Pressure; p != nil {
		gauge(d.pressure, p.CPU, "cpu")
		gauge(d.pressure, p.Memory, "memory")
		gauge(d.pressure, p.IO, "io")
	}
	phases, stalled, paused := map[fleet.Phase]int{}, 0, 0
	for i := range f.VMs {
		phases[f.VMs[i].Phase]++
		if s := f.VMs[i].Stall; s != nil {
			stalled++
			paused += int(truth(s.Paused))
		}
	}
	for phase, n := range phases {
		gauge(d.vms, float64(n), string(phase))
	}
	gauge(d.stalled, float64(stalled))
	gauge(d.paused, float64(paused))
	d.worker(out, &f)
	own := slices.DeleteFunc(slices.Clone(f.VMs), elsewhere)
	shown := worstFirst(own)
	if len(shown) > MaxMachines {
		shown = shown[:MaxMachines]
	}
	gauge(d.leftOut, float64(len(own)-len(shown)))
	for i := range shown {
		d.machine(out, &shown[i], time.Now())
		if flushes, ok := f.FlushesOf[shown[i].VM]; ok {
			d.disk(out, string(shown[i].Machine), &flushes)
		}
	}
}

// machine tells one machine's own figures.
func (d *descs) machine(out chan<- prometheus.Metric, v *fleet.VMReport, now time.Time) {
	id, since, kills := string(v.Machine), 0.0, int64(0)
	if v.Stall != nil {
		// a clock set back makes no stall go away
		since = max(now.Sub(v.Stall.Since).Seconds(), 0.001)
	}
	if v.OOM != nil {
		kills = v.OOM.Kills
	}
	tell := func(d *prometheus.Desc, t prometheus.ValueType, x float64) {
		out <- prometheus.MustNewConstMetric(d, t, x, id)
	}
	tell(d.stalledSeconds, prometheus.GaugeValue, since)
	tell(d.healthy, prometheus.GaugeValue, truth(v.Healthy()))
	tell(d.diskRequests, prometheus.CounterValue, float64(v.Disk.Requests))
	tell(d.diskRead, prometheus.CounterValue, float64(v.Disk.BytesRead))
	tell(d.diskWritten, prometheus.CounterValue, float64(v.Disk.BytesWritten))
	if v.Disk.QuotaBytes > 0 {
		tell(d.diskQuota, prometheus.GaugeValue, float64(v.Disk.QuotaBytes))
	}
	if v.Disk.StoredBytes > 0 {
		tell(d.diskStored, prometheus.GaugeValue, float64(v.Disk.StoredBytes))
	}
	tell(d.outOfMemoryKills, prometheus.CounterValue, float64(kills))
}

// elsewhere says that a machine only passes through here: it is to come, or it has left.
func elsewhere(v fleet.VMReport) bool {
	return v.Phase == fleet.PhasePreparing || v.Phase == fleet.PhasePrepared ||
		v.Phase == fleet.PhaseReleased
}

// worstFirst orders machines by how much they need to be seen.
func worstFirst(vms []fleet.VMReport) []fleet.VMReport {
	rank := func(v *fleet.VMReport) int {
		switch {
		case v.Stall != nil:
			return 0
		case !v.Healthy():
			return 1
		}
		return 2
	}
	slices.SortFunc(vms, func(a, b fleet.VMReport) int {
		return cmp.Or(cmp.Compare(rank(&a), rank(&b)), cmp.Compare(a.Machine, b.Machine))
	})
	return vms
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
