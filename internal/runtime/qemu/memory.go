package qemu

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	baseMiB      = 192  // what every VM boots with
	kernelMiB    = 64   // what a kernel takes for itself, on top of a VM's limit
	unboundedMiB = 1024 // what a VM without a limit gets: a kernel has to have some amount
	stepMiB      = 4    // what virtio-mem adds and takes at once
	qemuMiB      = 512  // for QEMU itself: translated code, queues, page tables

	memoryDevice = "more0"
	memoryWait   = 10 * time.Second // for the guest's kernel to give memory back, or to take it
)

// moreMiB is what a VM with a limit has beyond what it boots with.
func moreMiB(limit int64) int64 {
	if limit == 0 {
		limit = unboundedMiB
	}
	more := limit + kernelMiB - baseMiB
	return max(0, (more+stepMiB-1)/stepMiB*stepMiB)
}

// checkLimits returns an error for limits that no VM on this host can have.
func (d *Driver) checkLimits(l fleet.Resources) error {
	if l.CPUMillis < 0 || l.MemoryMiB < 0 {
		return errs.New(errs.Invalid, "limits can't be negative: %d millicores, %d MiB",
			l.CPUMillis, l.MemoryMiB)
	}
	if moreMiB(l.MemoryMiB) > d.host.MemoryMiB {
		return errs.New(errs.Invalid, "%d MiB for one VM; this host has %d MiB", l.MemoryMiB,
			d.host.MemoryMiB)
	}
	return nil
}

// outerLimits bound the process on the host: what the VM may use, and QEMU on top.
func outerLimits(l fleet.Resources) fleet.Resources {
	l.MemoryMiB = baseMiB + moreMiB(l.MemoryMiB) + qemuMiB
	return l
}

// askMemory sets how much memory the guest's kernel should have. The kernel adapts gradually.
func (v *vm) askMemory(ctx context.Context, limit int64) error {
	return v.withMonitor(ctx, func(m *monitor) error {
		return m.do("qom-set", map[string]any{
			"path": "/machine/peripheral/" + memoryDevice, "property": "requested-size",
			"value": moreMiB(limit) << 20,
		}, nil)
	})
}

// awaitMemory waits until the guest's kernel has as much memory as askMemory has set. Conflict: it
// still uses more after memoryWait.
func (v *vm) awaitMemory(ctx context.Context, limit int64) error {
	ctx, cancel := context.WithTimeout(ctx, memoryWait)
	defer cancel()
	want := moreMiB(limit) << 20
	var have int64
	err := v.withMonitor(ctx, func(m *monitor) error {
		return onhost.Poll(ctx, func() (bool, error) {
			err := m.do("qom-get", map[string]any{"path": "/machine/peripheral/" + memoryDevice,
				"property": "size"}, &have)
			return have == want, err
		})
	})
	if err != nil && have > want {
		return errs.Wrap(errs.Conflict, err, "VM %s uses more than %d MiB now", v.ID(), limit).
			WithRemedy("choose a higher bound")
	}
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "give VM %s %d MiB of memory", v.ID(), limit)
	}
	return nil
}
