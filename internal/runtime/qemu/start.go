package qemu

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/runtime/qemu/bootdisk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	// for a caller without a deadline; a start takes some seconds without KVM
	startTimeout = 3 * time.Minute
	seedBytes    = 64
	pollInterval = 5 * time.Millisecond // between looks at the console, for a mark
)

// Start makes the VM and returns once its init runs. Exists: its id is taken. If it fails it leaves
// nothing behind; otherwise the error says what, and a later Adopt returns it.
func (d *Driver) Start(ctx context.Context, spec runtime.Spec) (runtime.VM, error) {
	if err := d.checkSpec(spec); err != nil {
		return nil, err
	}
	ctx, cancel := onhost.Within(ctx, startTimeout)
	defer cancel()
	v, err := d.vms.Start(ctx, spec.ID,
		func(ctx context.Context, v *vm) error { return d.launch(ctx, v, spec) })
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (d *Driver) checkSpec(spec runtime.Spec) error {
	if err := onhost.CheckID(spec.ID); err != nil {
		return err
	}
	if spec.CacheBytes < 0 {
		return errs.New(errs.Invalid, "cache of %d bytes", spec.CacheBytes)
	}
	if len(spec.Boot) > bootdisk.MaxBoot {
		return errs.New(errs.Invalid, "boot document of %d bytes; at most %d", len(spec.Boot),
			bootdisk.MaxBoot)
	}
	if !filepath.IsAbs(spec.Release) {
		return errs.New(errs.Invalid, "release directory %q is not an absolute path", spec.Release)
	}
	for _, file := range []string{initPath, kernelPath, initrdPath} {
		st, err := os.Stat(filepath.Join(spec.Release, file))
		if err != nil || !st.Mode().IsRegular() {
			return errs.New(errs.Invalid, "release %s has no %s", spec.Release, file).
				WithRemedy("build a release with a kernel: make setup build")
		}
	}
	return d.checkLimits(spec.Limits)
}

// launch does the work of Start.
func (d *Driver) launch(ctx context.Context, v *vm, spec runtime.Spec) error {
	g, err := d.guestOf(ctx, spec.Release)
	if err != nil {
		return err
	}
	p := plan{guest: g, id: spec.ID, host: d.host, cacheBytes: (spec.CacheBytes + 4095) &^ 4095}
	if err := v.prepare(p, spec); err != nil {
		return err
	}
	if err := d.bootUp(ctx, v, p); err != nil {
		return err
	}
	if err := v.askMemory(ctx, spec.Limits.MemoryMiB); err != nil {
		return err
	}
	if err := v.order(spec); err != nil {
		return err
	}
	if err := v.awaitMark(ctx, bootdisk.MarkInit); err != nil {
		return err
	}
	v.Record.Whole = true
	if err := v.WriteRecord(); err != nil {
		return err
	}
	return v.Cgroups.SetLimits(outerLimits(spec.Limits))
}

// bootUp starts QEMU, and returns when the VM is ready for its order. It resumes a saved VM if
// there is one, else it boots. While there is none, one caller boots and saves its VM, and the
// others wait for that.
func (d *Driver) bootUp(ctx context.Context, v *vm, p plan) error {
	if d.cfg.Cold {
		return d.bootCold(ctx, v, p)
	}
	path, err := d.savedPath(p)
	if err != nil {
		return err
	}
	booted := false
	err = d.once(ctx, "boot ("+filepath.Base(path)+")", func() error {
		if touch(path) == nil {
			return nil
		}
		booted = true
		if err := d.bootCold(ctx, v, p); err != nil {
			return err
		}
		return d.saveWarm(ctx, v, path)
	})
	if err != nil || booted {
		return err
	}
	saved, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) { // the other one couldn't be saved
		return d.bootCold(ctx, v, p)
	}
	if err != nil {
		return errs.Wrap(errs.Internal, err, "open saved VM")
	}
	defer func() { _ = saved.Close() }()
	if err := v.inheritConsole(path); err != nil {
		return err
	}
	if err := v.spawn(p, saved); err != nil {
		return err
	}
	if err := v.awaitResumed(ctx); err != nil {
		return errors.Join(err, dropSaved(ctx, path))
	}
	return nil
}

func (d *Driver) bootCold(ctx context.Context, v *vm, p plan) error {
	if err := v.spawn(p, nil); err != nil {
		return err
	}
	return v.awaitMark(ctx, bootdisk.MarkReady)
}

// attend records QEMU's process, and watches it.
func (d *Driver) attend(v *vm, pid int) error {
	running, err := d.vms.Attend(v.VM, pid)
	if err == nil && !running {
		err = errs.New(errs.Internal, "QEMU of VM %s ended at once: %s", v.ID(),
			tail(filepath.Join(v.Dir(), qemuLog), 3))
	}
	return err
}

// prepare makes the VM's cgroups and files, in parallel.
func (v *vm) prepare(p plan, spec runtime.Spec) error {
	var g errgroup.Group
	g.Go(func() error {
		if err := v.Cgroups.Create(); err != nil {
			return err
		}
		limits := outerLimits(spec.Limits)
		limits.CPUMillis = 0 // from when it has booted
		return v.Cgroups.SetLimits(limits)
	})
	g.Go(func() error { return sparse(filepath.Join(v.Dir(), bootFile), bootdisk.Size) })
	if p.cacheBytes > 0 {
		g.Go(func() error { return sparse(filepath.Join(v.Dir(), cacheFile), p.cacheBytes) })
	}
	return g.Wait()
}

func sparse(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		return errs.Wrap(errs.Exhausted, err, "make disk of %d bytes", size)
	}
	return nil
}

// order writes the VM's order to its boot disk.
func (v *vm) order(spec runtime.Spec) error {
	disk, err := os.OpenFile(filepath.Join(v.Dir(), bootFile), os.O_WRONLY, 0)
	if err != nil {
		return errs.Wrap(errs.Internal, err, "open boot disk of VM %s", spec.ID)
	}
	seed := make([]byte, seedBytes)
	_, _ = rand.Read(seed) // never fails
	o := bootdisk.Order{Hostname: "vm-" + string(spec.ID), Clock: time.Now(), Seed: seed,
		Boot: spec.Boot}
	return errors.Join(bootdisk.Write(disk, o), disk.Close())
}

// awaitMark waits for a mark on the console.
func (v *vm) awaitMark(ctx context.Context, mark string) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		b, err := os.ReadFile(v.ConsolePath())
		switch {
		case err == nil && bytes.Contains(b, []byte(mark)):
			return nil
		case err != nil && !errors.Is(err, os.ErrNotExist):
			return errs.Wrap(errs.Internal, err, "read console of VM %s", v.ID())
		}
		select {
		case <-tick.C:
		case <-v.Alive().Done():
			return errs.New(errs.Internal, "VM %s ended while it booted: %s", v.ID(),
				v.consoleTail())
		case <-ctx.Done():
			return errs.Wrap(errs.Unavailable, context.Cause(ctx),
				"wait for VM %s to boot (console: %s)", v.ID(), tail(v.ConsolePath(), 3))
		}
	}
}

func (v *vm) consoleTail() string {
	return tail(v.ConsolePath(), 3) + " " + tail(filepath.Join(v.Dir(), qemuLog), 3)
}
