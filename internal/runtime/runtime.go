// Package runtime is the VM boundary: what a worker can do with a VM, under every driver.
//
// What crosses the boundary is what this package names, and nothing else: the boot document, the
// release image (read-only), the control stream (Dial), the host link (a network), one cache
// device, and a console. No other path, descriptor, mount or memory is shared, not even by drivers
// for which that would be easy. Where a VM has no kernel of its own, something must show and mount
// its disk in that one's place: package sandbox/broker does, over a socket in the VM.
//
// Invariants, checked for every driver by the conformance suite (runtimetest): a VM outlives the
// worker that started it and is found again by Adopt; after Remove nothing of it is left on the
// host (process, mount, loop device, namespace, cgroup, link, file); all methods are idempotent and
// safe to call after the VM has ended by itself.
package runtime

import (
	"context"
	"net"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// CacheDevice is the path of the cache device in every VM that has one.
const CacheDevice = "/dev/sluice-cache"

// Spec is what a VM is started with. All VMs of one release and runtime are alike until they are
// bound.
type Spec struct {
	ID fleet.VMID
	// Release is the directory of an unpacked release: the files that the VM's root namespace runs.
	Release string
	// Boot is the boot document. The driver delivers it as guestapi.BootFile, unread.
	Boot []byte
	// CacheBytes is the size of the cache device; 0 for none. Its content may be lost at any time.
	CacheBytes int64
	// Limits at the start; SetLimits changes them.
	Limits fleet.Resources
}

// Driver starts VMs of one kind on this host. Safe for concurrent use.
type Driver interface {
	// Name is "sandbox" or "qemu".
	Name() string
	// Probe returns nil if this host can run such VMs, by all that can be tried in a second.
	Probe(ctx context.Context) error
	// Start returns once the VM's init runs; the platform in it may take longer to answer.
	Start(ctx context.Context, spec Spec) (VM, error)
	// Adopt returns the VMs of earlier worker processes on this host that still exist. Ended ones
	// are included, so that their remains can be removed.
	Adopt(ctx context.Context) ([]VM, error)
}

// Accelerated is a Driver whose VMs have a kernel of their own.
type Accelerated interface {
	// Acceleration returns what executes the instructions of a release's VMs, such as KVM. It
	// boots the release's kernel to find out, which takes some seconds. Drivers remember the
	// result, also later ones over the same directories.
	Acceleration(ctx context.Context, release string) (fleet.Acceleration, error)
}

// Status is whether a VM runs.
type Status struct {
	Running   bool
	StartedAt time.Time
	// Exit says for people how the VM ended; "" while it runs.
	Exit string
}

// VM is one VM on this host. Safe for concurrent use.
type VM interface {
	ID() fleet.VMID
	// Dial opens the control stream to a port of the VM's root namespace (guestapi.ControlPort).
	Dial(ctx context.Context) (net.Conn, error)
	// HostLink is the name of the network interface, on the worker, that is the other end of the
	// VM's link.
	HostLink() string
	// SetLimits changes CPU and memory bounds; Unsupported where the driver can't do it while
	// running.
	SetLimits(ctx context.Context, limits fleet.Resources) error
	// Freeze stops every process of the VM where it is; Thaw lets them go on.
	Freeze(ctx context.Context) error
	Thaw(ctx context.Context) error
	// Status returns whether the VM runs now. Done is closed when the VM has ended.
	Status() Status
	Done() <-chan struct{}
	// Kill ends the VM at once, and returns when no process of it is left.
	Kill(ctx context.Context) error
	// Remove kills the VM if needed, and removes everything that it has on the host.
	Remove(ctx context.Context) error
	// ConsolePath is a file with what the VM wrote to its console.
	ConsolePath() string
}
