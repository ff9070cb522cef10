package qemu

import (
	"context"
	"net"
	"strings"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
)

// vm is a VM whose process is QEMU. Frozen, its clock isn't stopped: it is right again when it goes
// on.
type vm struct {
	*onhost.VM
	driver *Driver
}

// Dial connects over the VM's link.
func (v *vm) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := v.VM.Dial(ctx)
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn, nil
	}
	return &stream{TCPConn: tcp, stop: context.AfterFunc(v.Alive(), func() { _ = tcp.Close() })},
		nil
}

// stream is a connection that ends with its VM. The VM's kernel says nothing when it is gone.
type stream struct {
	*net.TCPConn
	stop func() bool
}

// Close closes the connection.
func (s *stream) Close() error {
	s.stop()
	return s.TCPConn.Close()
}

// SetLimits gives the VM more or less memory and CPU, and returns when its kernel has it; 0 means
// no bound for CPU, and 1 GiB of memory. Conflict if the kernel can't give back what it has.
func (v *vm) SetLimits(ctx context.Context, limits fleet.Resources) error {
	if err := v.Running(); err != nil {
		return err
	}
	if err := v.driver.checkLimits(limits); err != nil {
		return err
	}
	// The process must be allowed what the kernel in it is promised: more before, less after.
	roomy := outerLimits(limits)
	roomy.MemoryMiB = max(roomy.MemoryMiB,
		outerLimits(fleet.Resources{MemoryMiB: v.driver.host.MemoryMiB - kernelMiB}).MemoryMiB)
	if err := v.Cgroups.SetLimits(roomy); err != nil {
		return err
	}
	if err := v.askMemory(ctx, limits.MemoryMiB); err != nil {
		return err
	}
	if err := v.awaitMemory(ctx, limits.MemoryMiB); err != nil {
		return err
	}
	return v.Cgroups.SetLimits(outerLimits(limits))
}

// howItEnded prefers what the VM's kernel said last to how QEMU ended: that ends well whenever the
// VM ends itself.
func howItEnded(v *onhost.VM, process string) string {
	last := tail(v.ConsolePath(), 10)
	if _, after, ok := strings.Cut(last, "Kernel panic - "); ok {
		why, _, _ := strings.Cut(after, " / ")
		return "the kernel gave up: " + why
	}
	return "QEMU: " + process
}
