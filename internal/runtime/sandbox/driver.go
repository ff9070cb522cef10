package sandbox

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

var (
	_ runtime.Driver = (*Driver)(nil)
	_ runtime.VM     = (*vm)(nil)

	vmIDPattern   = regexp.MustCompile(`^[0-9a-f]{8}$`)
	parentPattern = regexp.MustCompile(`^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$`)
)

// Config is what a Driver needs.
type Config struct {
	// Dir holds one directory per VM. It belongs to one worker: New locks it. Made if it isn't there.
	Dir string
	// CgroupParent is the cgroup below which VMs are put, relative to the root of each hierarchy, as in
	// "sluice/w1". Different for every worker of a host.
	CgroupParent string
	Logger       *slog.Logger
}

// Driver starts sandbox VMs and finds those of earlier processes again. Safe for concurrent use.
type Driver struct {
	cfg    Config
	layout onhost.Layout
	bootID string
	lock   *os.File
	ctx    context.Context // ends when the driver is closed; VMs go on
	cancel context.CancelFunc
	watch  errgroup.Group
	vms    onhost.Table[vm] // those that Start or Adopt returned
}

// New makes a driver over a state directory. Conflict if another process has that directory.
func New(cfg Config) (*Driver, error) {
	if !parentPattern.MatchString(cfg.CgroupParent) || strings.Contains("/"+cfg.CgroupParent+"/", "/../") {
		return nil, errs.New(errs.Invalid, "cgroup parent %q is not a relative path of plain names", cfg.CgroupParent)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "make the directory of VMs")
	}
	// Loop devices are found again by the real path of their file.
	dir, err := filepath.Abs(cfg.Dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "resolve directory %s", cfg.Dir)
	}
	cfg.Dir = dir
	d := &Driver{cfg: cfg}
	if d.layout, err = onhost.HostLayout(); err != nil {
		return nil, err
	}
	if d.bootID, err = onhost.BootID(); err != nil {
		return nil, err
	}
	if d.lock, err = onhost.LockDir(dir); err != nil {
		return nil, err
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d, nil
}

// Close stops watching. VMs go on; Adopt of a later driver finds them.
func (d *Driver) Close() error {
	d.cancel()
	return errors.Join(d.watch.Wait(), d.lock.Close())
}

// Name returns "sandbox".
func (d *Driver) Name() string { return "sandbox" }

func (d *Driver) dir(id fleet.VMID) string { return filepath.Join(d.cfg.Dir, string(id)) }

func (d *Driver) cgroups(r onhost.Record) onhost.Cgroups {
	return onhost.Cgroups{Layout: d.layout, Parent: r.CgroupParent, ID: string(r.ID)}
}

// Adopt returns the VMs that an earlier process left, ended ones and half-made ones included. What is left of
// a start that was cut short is killed here. Calling it again returns the same VMs, less the removed.
func (d *Driver) Adopt(ctx context.Context) ([]runtime.VM, error) {
	entries, err := os.ReadDir(d.cfg.Dir)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "list VMs")
	}
	var found []runtime.VM
	for _, e := range entries {
		if !e.IsDir() || !vmIDPattern.MatchString(e.Name()) {
			continue
		}
		v, err := d.adoptOne(ctx, fleet.VMID(e.Name()))
		if err != nil {
			return nil, err
		}
		if v != nil {
			found = append(found, v)
		}
	}
	return found, nil
}

// adoptOne returns nil for a VM that this process started itself, or is starting.
func (d *Driver) adoptOne(ctx context.Context, id fleet.VMID) (*vm, error) {
	v, known := d.vms.Reserve(id)
	if known {
		if v == nil || !v.adopted {
			return nil, nil
		}
		return v, nil
	}
	rec, err := onhost.ReadRecord(d.dir(id), d.cfg.CgroupParent)
	if err == nil {
		v, err = d.revive(ctx, rec)
	}
	d.vms.Settle(id, v)
	return v, err
}

// revive makes a VM of its record: a running one if its init is still that process.
func (d *Driver) revive(ctx context.Context, rec onhost.Record) (*vm, error) {
	v := newVM(d, rec)
	v.adopted = true
	if rec.PID != 0 && rec.Boot == d.bootID {
		pidfd, err := onhost.OpenProcess(rec.PID, rec.StartTicks)
		if err != nil {
			return nil, err
		}
		if pidfd != nil {
			d.watchVM(v, pidfd)
			return v, nil
		}
	}
	v.end("ended while no worker was watching")
	if err := v.cgroups.KillAndWait(ctx); err != nil {
		return nil, err
	}
	return v, nil
}
