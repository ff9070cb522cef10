package sandbox

import (
	"context"

	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
)

var (
	_ runtime.Driver = (*Driver)(nil)
	_ runtime.VM     = (*vm)(nil)
)

// Config is what a Driver needs.
type Config = onhost.Config

// Driver starts sandbox VMs and finds those of earlier processes again. Safe for concurrent use.
type Driver struct{ vms *onhost.VMs[*vm] }

// New makes a driver over a state directory. Conflict if another process has that directory.
func New(cfg Config) (*Driver, error) {
	vms, err := onhost.OpenVMs(cfg, onhost.Kind[*vm]{
		Wrap:       func(v *onhost.VM) *vm { return &vm{v} },
		RemoveRest: removeRest,
	})
	if err != nil {
		return nil, err
	}
	return &Driver{vms}, nil
}

// removeRest removes what a VM has beside the usual. Its processes have ended.
func removeRest(ctx context.Context, v *onhost.VM) error {
	if v.Record.Beside != 0 {
		onhost.Reap(v.Record.Beside)
	}
	if err := detachCache(ctx, cachePath(v)); err != nil {
		return err
	}
	return giveIDs(v.Record.FirstID, v.Dir())
}

// Close stops watching. VMs go on; Adopt of a later driver finds them.
func (d *Driver) Close() error { return d.vms.Close() }

// Name returns "sandbox".
func (d *Driver) Name() string { return "sandbox" }

// Adopt returns the VMs that an earlier process left; see onhost.VMs.
func (d *Driver) Adopt(ctx context.Context) ([]runtime.VM, error) { return d.vms.Adopt(ctx) }
