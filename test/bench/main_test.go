//go:build bench

package bench

import (
	"os"
	"testing"

	"github.com/sluice-platform/sluice/internal/hostnet/tunnel"
	"github.com/sluice-platform/sluice/internal/runtime/qemu"
)

// TestMain lets a driver in this process start its VMs, and a tunnel its process.
func TestMain(m *testing.M) {
	qemu.Child()
	tunnel.Child()
	os.Exit(m.Run())
}
