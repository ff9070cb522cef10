package main

import (
	"log/slog"
	"path/filepath"
	"time"

	"github.com/sluice-platform/sluice/internal/devfleet"
	"github.com/sluice-platform/sluice/internal/runtime/qemu"
	"github.com/sluice-platform/sluice/internal/runtime/sandbox"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// qemuBootTimeout is for a kernel that boots without KVM on a busy host.
const qemuBootTimeout = 3 * time.Minute

// openRuntime opens a worker's runtime over its directory of VMs, which is named after it.
func openRuntime(runtime, dir, cgroups string, log *slog.Logger) (devfleet.Driver, error) {
	switch runtime {
	case "sandbox":
		return sandbox.New(sandbox.Config{Dir: dir, CgroupParent: cgroups, Logger: log})
	case "qemu":
		return qemu.New(qemu.Config{Dir: dir, CacheDir: filepath.Join(filepath.Dir(dir),
			"qemu-cache"), CgroupParent: cgroups, Logger: log})
	}
	return nil, errs.New(errs.Unsupported, "there is no runtime %q in this build", runtime).
		WithRemedy("use sandbox or qemu")
}
