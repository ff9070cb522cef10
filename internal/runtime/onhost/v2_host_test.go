package onhost

import (
	"os"
	"testing"

	"github.com/sluice-platform/sluice/test/v2host"
)

func TestMain(m *testing.M) {
	v2host.Main()
	os.Exit(m.Run())
}

// TestOnV2Alone runs this package's tests of real cgroups on a kernel that has v2 alone.
func TestOnV2Alone(t *testing.T) {
	v2host.Run(t, v2host.Host{Package: "internal/runtime/onhost", Run: "^TestV2", Kernel: v2host.PureV2})
}
