package qemu

import (
	"context"
	"net"
	"strings"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
)

// vm is a VM whose process is QEMU. Freezing doesn't stop its clock, which is right after a thaw.
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

// stream is a connection that ends with its VM. A VM that has ended closes no connection by itself.
type stream struct {
	*net.TCPConn
	stop func() bool
}

// Close closes the connection.
func (s *stream) Close() error {
	s.stop()
	return s.TCPConn.Close()
}

// SetLimits changes the VM's memory and CPU, and returns when its kernel has adapted. 0 means no
// bound for CPU, and 1 GiB of memory. Conflict: the kernel can't give back memory that it uses.
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

// howItEnded returns the last message of the VM's kernel, if there is one, else how QEMU ended.
// QEMU exits with 0 also when the VM has failed and ended itself.
func howItEnded(v *onhost.VM, process string) string {
	last := tail(v.ConsolePath(), 10)
	if _, after, ok := strings.Cut(last, "Kernel panic - "); ok {
		why, _, _ := strings.Cut(after, " / ")
		return "the kernel gave up: " + why
	}
	return "QEMU: " + process
}
