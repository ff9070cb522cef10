//go:build bench

package bench

import (
	"os"
	"testing"

	"github.com/sluice-platform/sluice/internal/runtime/qemu"
)

// TestMain lets a driver in this process start its VMs.
func TestMain(m *testing.M) {
	qemu.Child()
	os.Exit(m.Run())
}
