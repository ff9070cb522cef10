package metrics_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/worker/metrics"
)

// TestStepsHaveAFixedSetOfLabels: what a VM makes up is not counted.
func TestStepsHaveAFixedSetOfLabels(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	m := metrics.New(reg)
	series := func() int {
		n, err := testutil.GatherAndCount(reg, "sluice_worker_start_step_seconds",
			"sluice_worker_release_step_seconds")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := series()
	steps := []guestapi.Step{{Name: guestapi.StepAttach, Took: time.Second}, {Name: "made up"},
		{Name: guestapi.StepClose}}
	m.Started(steps)
	m.Released(steps)
	if after := series(); after != before || before == 0 {
		t.Errorf("%d series, then %d", before, after)
	}
}
