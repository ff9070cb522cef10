package onhost

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// ConsoleFile is the name of the console file in a VM's directory.
const ConsoleFile = "console.log"

// VM is what every VM has on its host, and whether it runs. A driver's VM embeds one.
// Its methods are safe for concurrent use, and after the VM has ended.
type VM struct {
	Record  Record // not changed once the VM is out of Start or Adopt
	Cgroups Cgroups

	dir        string
	console    Console // set before anybody watches the VM
	adopted    bool
	ctx        context.Context // done when the VM has ended
	ended      context.CancelFunc
	watched    context.Context // done when nobody watches it any more
	removeRest func(context.Context) error
	forget     func()

	mu      sync.Mutex
	exit    string
	removed bool // its name may be another VM's by now
}

// onHost returns the VM that a driver's own embeds, for VMs.
func (v *VM) onHost() *VM { return v } //nolint:unused // by an interface

// ID returns the VM's id.
func (v *VM) ID() fleet.VMID { return v.Record.ID }

// Dir is the VM's directory.
func (v *VM) Dir() string { return v.dir }

// WriteRecord puts the record on disk.
func (v *VM) WriteRecord() error { return v.Record.Write(v.dir) }

// HostLink returns the name of the worker's end of the VM's link.
func (v *VM) HostLink() string { return LinkName(v.Record.ID) }

// ConsolePath returns the console file; older output is beside it, in a file with ".1" added to its
// name.
func (v *VM) ConsolePath() string { return filepath.Join(v.dir, ConsoleFile) }

// OpenConsole makes the VM's console, and returns what its first process is to write to. It must
// come before Attend.
func (v *VM) OpenConsole() (*os.File, error) {
	buffer, err := openBuffer()
	if err != nil {
		return nil, err
	}
	own, err := unix.FcntlInt(buffer.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(errs.Wrap(errs.Exhausted, err, "hold the console of VM %s",
			v.Record.ID), buffer.Close())
	}
	v.console.buffer = os.NewFile(uintptr(own), "console") //nolint:gosec // a descriptor
	return buffer, nil
}

// Done is closed when the VM has ended.
func (v *VM) Done() <-chan struct{} { return v.ctx.Done() }

// Alive is a context that ends with the VM.
func (v *VM) Alive() context.Context { return v.ctx }

// Status returns whether the VM runs now.
func (v *VM) Status() runtime.Status {
	v.mu.Lock()
	defer v.mu.Unlock()
	return runtime.Status{Running: v.ctx.Err() == nil, StartedAt: v.Record.StartedAt, Exit: v.exit}
}

// Running returns nil while the VM runs, and a Conflict once it has ended.
func (v *VM) Running() error {
	if !v.Status().Running {
		return errs.New(errs.Conflict, "VM %s has ended", v.Record.ID)
	}
	return nil
}

// End records that the VM has ended; the first reason stays.
func (v *VM) End(exit string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ctx.Err() == nil {
		v.exit = exit
		v.ended()
	}
}

// Dial connects over the VM's link.
func (v *VM) Dial(ctx context.Context) (net.Conn, error) {
	if !v.Status().Running {
		return nil, errs.New(errs.Unavailable, "VM %s has ended", v.Record.ID)
	}
	conn, err := Dial(ctx, v.ctx, v.HostLink(), guestapi.ControlPort)
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err, "dial VM %s", v.Record.ID)
	}
	return conn, nil
}

// Freeze stops every process of the VM.
func (v *VM) Freeze(ctx context.Context) error {
	if err := v.Running(); err != nil {
		return err
	}
	return v.Cgroups.Freeze(ctx)
}

// Thaw undoes Freeze.
func (v *VM) Thaw(context.Context) error {
	if err := v.Running(); err != nil {
		return err
	}
	return v.Cgroups.Thaw()
}

// Kill ends the VM at once and returns when no process of it is left.
func (v *VM) Kill(ctx context.Context) error {
	if v.isRemoved() {
		return nil
	}
	if err := v.Cgroups.KillAndWait(ctx); err != nil {
		return err
	}
	select {
	case <-v.ctx.Done(): // the watcher has seen it too
		return nil
	case <-v.watched.Done(): // no watcher any more
		v.End("killed")
		return nil
	case <-ctx.Done():
		return errs.Wrap(errs.Unavailable, context.Cause(ctx),
			"wait for the end of VM %s", v.Record.ID)
	}
}

// Remove kills the VM and removes all that it left. If it fails, or the worker dies on the way, the
// directory is still there for the next try.
func (v *VM) Remove(ctx context.Context) error {
	if v.isRemoved() {
		return nil
	}
	if err := v.Kill(ctx); err != nil {
		return err
	}
	if err := DeleteLink(v.HostLink()); err != nil {
		return err
	}
	if v.removeRest != nil {
		if err := v.removeRest(ctx); err != nil {
			return err
		}
	}
	if err := v.Cgroups.Remove(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(v.dir); err != nil {
		return errs.Wrap(errs.Internal, err, "remove directory of VM %s", v.Record.ID)
	}
	v.mu.Lock()
	first := !v.removed
	v.removed = true
	v.mu.Unlock()
	if first { // the id is free from here on
		v.forget()
	}
	return nil
}

func (v *VM) isRemoved() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.removed
}
