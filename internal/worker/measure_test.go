package worker_test

import (
	"testing"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// TestAnOlderRunEndsNoWait: a start that first has to end the machine's older run here is measured
// as any other.
func TestAnOlderRunEndsNoWait(t *testing.T) {
	const bound = `sluice_worker_start_step_seconds_count{step="bind"}`
	r := newRig(t, 1)
	r.newDisk(m1)
	r.start()
	for i, want := range []string{"1", "2"} {
		g := fleet.Generation(i + 1)
		r.feed.assign(assignment(m1, g, fleet.WantRunning))
		r.awaitPhase(m1, g, fleet.PhaseHealthy)
		if got := r.scraped(bound); got != want {
			t.Errorf("generation %d is healthy, and %s starts were measured, want %s", g, got, want)
		}
	}
}
