package platform_test

import (
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
)

// TestKilledVMIsGone kills VMs with a dirty file system mounted: nothing may be left waiting for a disk whose
// server is dead, and what was acknowledged is there for the next one.
func TestKilledVMIsGone(t *testing.T) {
	id := newDisk(t)
	for gen := range 4 {
		b := bindOf(id, fleet.Generation(gen+1))
		v := startVM(t)
		v.bind(b)
		v.await("healthy", inState(guestapi.StateHealthy))
		if gen > 0 {
			if got := v.sh("cat /data/kept"); got != "kept\n" {
				t.Fatalf("generation %d: %q", gen, got)
			}
		}
		v.sh("echo kept > /data/kept; sync; dd if=/dev/zero of=/data/dirty bs=64k count=200 2>/dev/null")
		began := time.Now()
		if err := v.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("killed in %v", took)
		}
	}
}
