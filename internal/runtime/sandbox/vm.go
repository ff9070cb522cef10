package sandbox

import (
	"context"
	"path/filepath"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
)

type vm struct{ *onhost.VM }

// In a VM's directory: where its root is made, and where its disk is mounted, in the mount
// namespace of its broker.
const (
	rootDir = "root"
	diskDir = "disk"
)

func cachePath(v *onhost.VM) string { return filepath.Join(v.Dir(), "cache.img") }

// SetLimits bounds the whole VM, its platform included; 0 means no bound. Conflict: the VM uses
// more memory than the new bound, and not enough can be reclaimed.
func (v *vm) SetLimits(_ context.Context, limits fleet.Resources) error {
	if err := v.Running(); err != nil {
		return err
	}
	return v.Cgroups.SetLimits(limits)
}
