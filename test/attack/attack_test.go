package attack

import (
	"testing"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/test/fleettest"
)

// TestUserCode: root in a machine gets at nothing that isn't the machine's (invariant 13).
func TestUserCode(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 1, Pool: 1})
	m := f.Create("hostile", "green", "w1", api.MachineConfig{Image: fleettest.Image, CPUs: 0.5,
		MemoryMiB: 128})
	UserCode(f, m).MustBeRefused(t)
}
