package qemu

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

var (
	_ runtime.Driver      = (*Driver)(nil)
	_ runtime.Accelerated = (*Driver)(nil)
	_ runtime.VM          = (*vm)(nil)

	vmIDPattern   = regexp.MustCompile(`^[0-9a-f]{8}$`)
	parentPattern = regexp.MustCompile(`^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$`)
)

// program is QEMU.
const program = "qemu-system-x86_64"

// Config is what a Driver needs.
type Config struct {
	// Dir holds one directory per VM. It belongs to one worker: New locks it. Made if it isn't there.
	Dir string
	// CacheDir holds what is made once per release. Drivers of one host may share it. Made if it isn't there.
	CacheDir string
	// CgroupParent is the cgroup below which VMs are put, relative to the root of each hierarchy. Different for
	// every worker of a host.
	CgroupParent string
	// Cold has every VM boot its kernel, also where a saved VM would be there sooner.
	Cold   bool
	Logger *slog.Logger
}

// Driver starts qemu VMs and finds those of earlier processes again. Safe for concurrent use.
type Driver struct {
	cfg    Config
	host   host
	layout onhost.Layout
	bootID string
	lock   *os.File
	ctx    context.Context // ends when the driver is closed; VMs go on
	cancel context.CancelFunc
	watch  errgroup.Group
	vms    onhost.Table[vm] // those that Start or Adopt returned

	mu    sync.Mutex
	works map[string]*work // what is made once, while it is being made
}

// host is what this machine has, as far as it shapes VMs.
type host struct {
	CPUs      int
	MemoryMiB int64
}

// New makes a driver over a state directory. Conflict if another process has that directory.
func New(cfg Config) (*Driver, error) {
	if !parentPattern.MatchString(cfg.CgroupParent) || strings.Contains("/"+cfg.CgroupParent+"/", "/../") {
		return nil, errs.New(errs.Invalid, "cgroup parent %q is not a relative path of plain names", cfg.CgroupParent)
	}
	for _, dir := range []*string{&cfg.Dir, &cfg.CacheDir} {
		abs, err := filepath.Abs(*dir)
		if err == nil && *dir == "" {
			err = errors.New("it has no name")
		}
		if err == nil {
			err = os.MkdirAll(abs, 0o700)
		}
		if err != nil {
			return nil, errs.Wrap(errs.Invalid, err, "make the directory of VMs")
		}
		*dir = abs
	}
	d := &Driver{cfg: cfg, works: map[string]*work{}}
	var err error
	if d.host, err = thisHost(); err != nil {
		return nil, err
	}
	if d.layout, err = onhost.HostLayout(); err != nil {
		return nil, err
	}
	if d.bootID, err = onhost.BootID(); err != nil {
		return nil, err
	}
	if d.lock, err = onhost.LockDir(cfg.Dir); err != nil {
		return nil, err
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d, nil
}

func thisHost() (host, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return host{}, errs.Wrap(errs.Internal, err, "read this host's memory")
	}
	// In steps of a memory block of the guest's kernel.
	return host{CPUs: min(goruntime.NumCPU(), 8), MemoryMiB: int64(uint64(info.Totalram)*uint64(info.Unit)>>27) << 7}, nil
}

// Close stops watching. VMs go on; Adopt of a later driver finds them.
func (d *Driver) Close() error {
	d.cancel()
	return errors.Join(d.watch.Wait(), d.lock.Close())
}

// Name returns "qemu".
func (d *Driver) Name() string { return "qemu" }

// Probe looks for what VMs need of this host. What they are accelerated by Acceleration says: only booting a kernel
// tells.
func (d *Driver) Probe(context.Context) error {
	for _, tool := range []string{program, "mkfs.ext4"} {
		if _, err := lookPath(tool); err != nil {
			return errs.Wrap(errs.Unsupported, err, "find %s", tool).WithRemedy("apt-get install qemu-system-x86 e2fsprogs")
		}
	}
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return errs.Wrap(errs.Unsupported, err, "open /dev/net/tun").WithRemedy("run as root, and modprobe tun")
	}
	return f.Close()
}

// lookPath finds a program also where the environment of a daemon has no sbin.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/bin"} {
		if err == nil {
			return path, nil
		}
		path, err = exec.LookPath(filepath.Join(dir, name))
	}
	return path, err
}

func (d *Driver) dir(id fleet.VMID) string { return filepath.Join(d.cfg.Dir, string(id)) }

func (d *Driver) cgroups(r onhost.Record) onhost.Cgroups {
	return onhost.Cgroups{Layout: d.layout, Parent: r.CgroupParent, ID: string(r.ID), Devices: []string{"c 10:232 rwm"}} // kvm
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

// revive makes a VM of its record: a running one if it is whole and its QEMU is still that process.
func (d *Driver) revive(ctx context.Context, rec onhost.Record) (*vm, error) {
	v := newVM(d, rec)
	v.adopted = true
	if rec.Whole && rec.PID != 0 && rec.Boot == d.bootID {
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
