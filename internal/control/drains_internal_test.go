package control

import (
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// TestABlockerIsNewsOnceItHasLasted: what a drain waits for in passing is told to nobody.
func TestABlockerIsNewsOnceItHasLasted(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	d := fleet.Drain{State: fleet.DrainBlocked, Blockers: []fleet.Blocker{{Code: "no-report",
		Since: at}, {Code: "vm-left", Since: at.Add(-time.Minute)}}}
	if got := lasting(d, at.Add(60*time.Millisecond)); got.State != fleet.DrainBlocked ||
		len(got.Blockers) != 1 || got.Blockers[0].Code != "vm-left" {
		t.Errorf("%+v", got)
	}
	d.Blockers = d.Blockers[:1]
	if got := lasting(d, at.Add(60*time.Millisecond)); got.State != fleet.DrainRunning ||
		len(got.Blockers) != 0 {
		t.Errorf("%+v", got)
	}
	if got := lasting(d, at.Add(newsAfter)); got.State != fleet.DrainBlocked ||
		len(got.Blockers) != 1 {
		t.Errorf("%+v", got)
	}
}
