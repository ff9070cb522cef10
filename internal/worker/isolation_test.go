package worker_test

import (
	"testing"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestMachinesOfStrangersAreRefused: one that needs a kernel of its own doesn't run where machines
// share one, whatever the server says.
func TestMachinesOfStrangersAreRefused(t *testing.T) {
	r := newRig(t, 1)
	r.newDisk(m1)
	r.start()
	a := assignment(m1, 1, fleet.WantRunning)
	a.Config.Isolation = fleet.IsolationVM
	r.feed.assign(a)
	if v := r.awaitPhase(m1, 1, fleet.PhaseFailed); v.ErrorKind != string(errs.Denied) {
		t.Errorf("%s: %s", v.ErrorKind, v.Error)
	}
}
