package metrics_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/worker/metrics"
)

// TestMachinesAreBounded: beyond the bound machines are only counted, and the one in trouble is
// never among those.
func TestMachinesAreBounded(t *testing.T) {
	f := metrics.Figures{PoolReady: 1, PoolWanted: 2}
	for i := range metrics.MaxMachines + 7 {
		f.VMs = append(f.VMs, fleet.VMReport{Machine: fleet.MachineID(fmt.Sprintf("m%04d", i)),
			Phase: fleet.PhaseHealthy})
	}
	f.VMs = append(f.VMs, fleet.VMReport{Machine: "passing", Phase: fleet.PhasePrepared})
	f.VMs[metrics.MaxMachines+3].Stall = &fleet.DiskStall{Since: time.Now().Add(-time.Minute),
		Paused: true}
	f.VMs[metrics.MaxMachines+5].Phase = fleet.PhaseFailed
	reg := prometheus.NewPedanticRegistry()
	if err := metrics.New(reg).Watch(func() metrics.Figures { return f }); err != nil {
		t.Fatal(err)
	}
	if n, err := testutil.GatherAndCount(reg, "sluice_machine_healthy"); err != nil ||
		n != metrics.MaxMachines {
		t.Errorf("%d machines have figures of their own, %v", n, err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		for _, m := range family.Metric {
			key := family.GetName()
			for _, l := range m.Label {
				key += " " + l.GetValue()
			}
			values[key] = m.GetGauge().GetValue()
		}
	}
	stalled, failed := string(f.VMs[metrics.MaxMachines+3].Machine),
		string(f.VMs[metrics.MaxMachines+5].Machine)
	for key, want := range map[string]float64{
		"sluice_machines_left_out": 7, "sluice_disks_stalled": 1, "sluice_machines_paused": 1,
		"sluice_machine_healthy " + failed: 0, "sluice_pool_vms ready": 1,
		"sluice_pool_wanted_vms":    2,
		"sluice_worker_vms healthy": metrics.MaxMachines + 6, "sluice_worker_vms prepared": 1,
	} {
		if got, ok := values[key]; !ok || got != want {
			t.Errorf("%s is %v (there: %v), want %v", key, got, ok, want)
		}
	}
	if got := values["sluice_disk_stalled_seconds "+stalled]; got < 60 {
		t.Errorf("the stalled disk has stalled for %v s", got)
	}
	for key := range values {
		if strings.Contains(key, "passing") {
			t.Errorf("a machine that only passes through has %s", key)
		}
	}
}
