package qemu

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const consoleFile = "console.log"

type vm struct {
	driver  *Driver
	rec     onhost.Record // not changed once the VM is out of Start or Adopt
	cgroups onhost.Cgroups
	adopted bool
	ctx     context.Context // done when the VM has ended
	ended   context.CancelFunc

	mu      sync.Mutex
	exit    string
	removed bool // its name may be another VM's by now
}

func newVM(d *Driver, rec onhost.Record) *vm {
	v := &vm{driver: d, rec: rec, cgroups: d.cgroups(rec)}
	v.ctx, v.ended = context.WithCancel(context.Background())
	return v
}

func (v *vm) dir() string { return v.driver.dir(v.rec.ID) }

// ID returns the VM's id.
func (v *vm) ID() fleet.VMID { return v.rec.ID }

// HostLink returns the name of the worker's end of the VM's link.
func (v *vm) HostLink() string { return onhost.LinkName(v.rec.ID) }

// ConsolePath returns the console file; older output is beside it, in a file with ".1" added to its name.
func (v *vm) ConsolePath() string { return filepath.Join(v.dir(), consoleFile) }

// Done is closed when the VM has ended.
func (v *vm) Done() <-chan struct{} { return v.ctx.Done() }

// Status looks now.
func (v *vm) Status() runtime.Status {
	v.mu.Lock()
	defer v.mu.Unlock()
	return runtime.Status{Running: v.ctx.Err() == nil, StartedAt: v.rec.StartedAt, Exit: v.exit}
}

// end records that the VM has ended; the first reason stays.
func (v *vm) end(exit string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ctx.Err() == nil {
		v.exit = exit
		v.ended()
	}
}

// Dial connects over the VM's link.
func (v *vm) Dial(ctx context.Context) (net.Conn, error) {
	if !v.Status().Running {
		return nil, errs.New(errs.Unavailable, "VM %s has ended", v.rec.ID)
	}
	conn, err := onhost.Dial(ctx, v.ctx, v.HostLink(), guestapi.ControlPort)
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err, "dial VM %s", v.rec.ID)
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn, nil
	}
	return &stream{TCPConn: tcp, stop: context.AfterFunc(v.ctx, func() { _ = tcp.Close() })}, nil
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

// SetLimits gives the VM more or less memory and CPU, and returns when its kernel has it; 0 means no bound for CPU,
// and 1 GiB of memory. Conflict if the kernel can't give back what it has.
func (v *vm) SetLimits(ctx context.Context, limits fleet.Resources) error {
	if !v.Status().Running {
		return errs.New(errs.Conflict, "VM %s has ended", v.rec.ID)
	}
	if err := v.driver.checkLimits(limits); err != nil {
		return err
	}
	// The process must be allowed what the kernel in it is promised: more before, less after.
	roomy := outerLimits(limits)
	roomy.MemoryMiB = max(roomy.MemoryMiB, outerLimits(fleet.Resources{MemoryMiB: v.driver.host.MemoryMiB - kernelMiB}).MemoryMiB)
	if err := v.cgroups.SetLimits(roomy); err != nil {
		return err
	}
	if err := v.askMemory(ctx, limits.MemoryMiB); err != nil {
		return err
	}
	if err := v.awaitMemory(ctx, limits.MemoryMiB); err != nil {
		return err
	}
	return v.cgroups.SetLimits(outerLimits(limits))
}

// Freeze stops QEMU, and so the VM. The VM's clock isn't stopped: it is right again when it goes on.
func (v *vm) Freeze(ctx context.Context) error {
	if !v.Status().Running {
		return errs.New(errs.Conflict, "VM %s has ended", v.rec.ID)
	}
	return v.cgroups.Freeze(ctx)
}

// Thaw lets it go on.
func (v *vm) Thaw(context.Context) error {
	if !v.Status().Running {
		return errs.New(errs.Conflict, "VM %s has ended", v.rec.ID)
	}
	return v.cgroups.Thaw()
}

// Kill ends the VM at once and returns when no process of it is left.
func (v *vm) Kill(ctx context.Context) error {
	if v.isRemoved() {
		return nil
	}
	if err := v.cgroups.KillAndWait(ctx); err != nil {
		return err
	}
	select {
	case <-v.ctx.Done(): // the watcher has seen it too
		return nil
	case <-v.driver.ctx.Done(): // no watcher any more
		v.end("killed")
		return nil
	case <-ctx.Done():
		return errs.Wrap(errs.Unavailable, context.Cause(ctx), "wait for the end of VM %s", v.rec.ID)
	}
}

// Remove kills the VM and removes all that it left. If it fails, or the worker dies on the way, the directory
// is still there for the next try.
func (v *vm) Remove(ctx context.Context) error {
	if v.isRemoved() {
		return nil
	}
	if err := v.Kill(ctx); err != nil {
		return err
	}
	if err := onhost.DeleteLink(v.HostLink()); err != nil {
		return err
	}
	if err := v.cgroups.Remove(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(v.dir()); err != nil {
		return errs.Wrap(errs.Internal, err, "remove directory of VM %s", v.rec.ID)
	}
	v.mu.Lock()
	first := !v.removed
	v.removed = true
	v.mu.Unlock()
	if first { // the id is free from here on
		v.driver.vms.Settle(v.rec.ID, nil)
	}
	return nil
}

func (v *vm) isRemoved() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.removed
}

// watchVM ends v when its QEMU, held by pidfd, has; it stops when the driver is closed.
func (d *Driver) watchVM(v *vm, pidfd *os.File) {
	d.watch.Go(func() error {
		ended, err := onhost.Watch(d.ctx, pidfd, onhost.Console{Path: v.ConsolePath()}, func(err error) {
			d.cfg.Logger.WarnContext(d.ctx, "console can't be bounded", "vm_id", v.rec.ID, "error", err)
		})
		if err != nil {
			return errs.Wrap(errs.Internal, err, "watch VM %s", v.rec.ID)
		}
		if ended {
			v.end(v.howItEnded(onhost.Reap(v.rec.PID)))
		}
		return nil
	})
}

// howItEnded prefers what the VM's kernel said last to how QEMU ended: that ends well whenever the VM ends itself.
func (v *vm) howItEnded(process string) string {
	last := tail(v.ConsolePath(), 10)
	if _, after, ok := strings.Cut(last, "Kernel panic - "); ok {
		why, _, _ := strings.Cut(after, " / ")
		return "the kernel gave up: " + why
	}
	return "QEMU: " + process
}
