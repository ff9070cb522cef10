package qemu

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/runtime/qemu/bootdisk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	saveLimit   = 20 * time.Second
	resumeLimit = 60 * time.Second
	warmLimit   = 30 * time.Second // from when a VM takes its order until its platform needs it
)

// savedPath names the saved VM that a VM of this plan can be resumed from: all that QEMU is told is
// in it, QEMU's own identity, and this boot of the host, whose CPU may have changed since another
// one.
func (d *Driver) savedPath(p plan) (string, error) {
	qemu, err := lookPath(program)
	if err != nil {
		return "", errs.Wrap(errs.Unsupported, err, "find QEMU")
	}
	id, err := stamp(qemu)
	if err != nil {
		return "", err
	}
	p.id = ""
	what := strings.Join(p.arguments("/"), "\n") + fmt.Sprint(id, d.vms.BootID(),
		p.KernelID, p.cacheBytes)
	sum := sha256.Sum256([]byte(what))
	return filepath.Join(d.cfg.CacheDir, "saved-"+hex.EncodeToString(sum[:8])+".vm"), nil
}

// dropSaved removes a saved VM that failed to resume, so that the next VM boots.
func dropSaved(ctx context.Context, path string) error {
	if context.Cause(ctx) != nil {
		return nil // not its fault
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errs.Wrap(errs.Internal, err, "drop saved VM")
	}
	return nil
}

// awaitResumed waits until QEMU has read the saved VM and lets it run.
func (v *vm) awaitResumed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, onhost.Patient(resumeLimit))
	defer cancel()
	err := v.withMonitor(ctx, func(m *monitor) error {
		err := onhost.Poll(ctx, func() (bool, error) {
			var now struct{ Status string }
			err := m.do("query-status", nil, &now)
			return now.Status == "paused", err // as it was when it was saved
		})
		if err != nil {
			return err
		}
		return m.do("cont", nil, nil)
	})
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "resume VM %s from a saved one (%s)", v.ID(),
			v.consoleTail())
	}
	return nil
}

// saveWarm saves a VM once its platform waits for nothing but the boot document. If it never gets
// that far, the VM isn't saved.
func (d *Driver) saveWarm(ctx context.Context, v *vm, path string) error {
	warming, cancel := context.WithTimeout(ctx, onhost.Patient(warmLimit))
	defer cancel()
	err := v.awaitMark(warming, bootdisk.MarkWarm)
	switch {
	case err == nil:
		return d.save(ctx, v, path)
	case ctx.Err() != nil || !v.Status().Running:
		return err
	}
	d.cfg.Logger.WarnContext(ctx, "vm isn't saved for others: its platform isn't ready for that",
		"vm_id", v.ID(), "waited", warmLimit)
	return nil
}

// save writes a VM that waits for its order to a file, from which others can be resumed. The VM
// runs on afterwards, also if it couldn't be saved.
func (d *Driver) save(ctx context.Context, v *vm, path string) error {
	ctx, cancel := context.WithTimeout(ctx, onhost.Patient(saveLimit))
	defer cancel()
	return v.withMonitor(ctx, func(m *monitor) error {
		if err := m.do("stop", nil, nil); err != nil {
			return err
		}
		err := d.makeWhole(saidBy(path),
			func(tmp string) error { return copyFile(v.ConsolePath(), tmp) })
		if err == nil {
			err = d.makeWhole(path, func(tmp string) error { return migrateTo(ctx, m, tmp) })
		}
		if err != nil {
			d.cfg.Logger.WarnContext(ctx, "vm can't be saved for others", "vm_id",
				v.ID(), "error", err)
		} else {
			d.prune("saved-*.vm")
			d.prune("saved-*.console")
		}
		return m.do("cont", nil, nil)
	})
}

// saidBy returns the path of a saved VM's console output. VMs that are resumed from it don't write
// it again.
func saidBy(saved string) string { return strings.TrimSuffix(saved, ".vm") + ".console" }

// inheritConsole begins a VM's console with the output of the saved one. That is from before the
// order, so it has no MarkInit.
func (v *vm) inheritConsole(saved string) error {
	_ = touch(saidBy(saved)) // as recently used as the VM
	err := copyFile(saidBy(saved), v.ConsolePath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // it costs nobody more than some lines
		return errs.Wrap(errs.Internal, err, "begin the console of VM %s", v.ID())
	}
	return nil
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

// migrateTo makes QEMU write the stopped VM to a file.
func migrateTo(ctx context.Context, m *monitor, path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := m.send("getfd", map[string]any{"fdname": "saved"}, nil,
		unix.UnixRights(int(f.Fd()))); err != nil {
		return err
	}
	if err := m.do("migrate-set-parameters", map[string]any{"max-bandwidth": 4 << 30},
		nil); err != nil {
		return err
	}
	if err := m.do("migrate", map[string]any{"uri": "fd:saved"}, nil); err != nil {
		return err
	}
	return onhost.Poll(ctx, func() (bool, error) {
		var got struct {
			Status string
			Desc   string `json:"error-desc"`
		}
		if err := m.do("query-migrate", nil, &got); err != nil {
			return false, err
		}
		if got.Status == "failed" || got.Status == "cancelled" {
			return false, errs.New(errs.Internal, "QEMU couldn't save it: %s", got.Desc)
		}
		return got.Status == "completed", nil
	})
}
