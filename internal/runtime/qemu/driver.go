package qemu

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

var (
	_ runtime.Driver      = (*Driver)(nil)
	_ runtime.Accelerated = (*Driver)(nil)
	_ runtime.VM          = (*vm)(nil)
)

// program is QEMU.
const program = "qemu-system-x86_64"

// Config is what a Driver needs.
type Config struct {
	// Dir holds one directory per VM. It belongs to one worker: New locks it. Made if it isn't
	// there.
	Dir string
	// CacheDir holds what is made once per release. Drivers of one host may share it. Made if it
	// isn't there.
	CacheDir string
	// CgroupParent is the cgroup below which VMs are put, relative to the root of each hierarchy.
	// Different for every worker of a host.
	CgroupParent string
	// Cold makes every VM boot its kernel, instead of resuming a saved VM, which is faster.
	Cold   bool
	Logger *slog.Logger
}

// Driver starts qemu VMs and finds those of earlier processes again. Safe for concurrent use.
type Driver struct {
	cfg  Config
	host host
	vms  *onhost.VMs[*vm]

	mu    sync.Mutex
	works map[string]*work // what is made once, while it is being made
}

// host describes this machine, as far as it shapes VMs.
type host struct {
	CPUs      int
	MemoryMiB int64
}

// New makes a driver over a state directory. Conflict if another process has that directory.
func New(cfg Config) (*Driver, error) {
	var err error
	if cfg.CacheDir, err = filepath.Abs(cfg.CacheDir); err == nil {
		err = os.MkdirAll(cfg.CacheDir, 0o700)
	}
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "make the directory of what VMs share")
	}
	d := &Driver{cfg: cfg, works: map[string]*work{}}
	if d.host, err = thisHost(); err != nil {
		return nil, err
	}
	d.vms, err = onhost.OpenVMs(onhost.Config{Dir: cfg.Dir, CgroupParent: cfg.CgroupParent,
		Logger: cfg.Logger}, onhost.Kind[*vm]{
		Wrap:       func(v *onhost.VM) *vm { return &vm{v, d} },
		Devices:    []string{"c 10:232 rwm", "c 10:200 rwm"}, // kvm tun
		Revivable:  func(r onhost.Record) bool { return r.Whole },
		HowItEnded: howItEnded,
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

func thisHost() (host, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return host{}, errs.Wrap(errs.Internal, err, "read this host's memory")
	}
	// In steps of a memory block of the guest's kernel.
	return host{CPUs: min(goruntime.NumCPU(), 8),
		MemoryMiB: int64(uint64(info.Totalram)*uint64(info.Unit)>>27) << 7}, nil
}

// Close stops watching. VMs keep running, and a later driver's Adopt finds them.
func (d *Driver) Close() error { return d.vms.Close() }

// Name returns "qemu".
func (d *Driver) Name() string { return "qemu" }

// Probe returns nil if this host has what VMs need. Only Acceleration can tell whether KVM works,
// because it boots a kernel.
func (d *Driver) Probe(context.Context) error {
	for _, tool := range []string{program, "mkfs.ext4"} {
		if _, err := lookPath(tool); err != nil {
			return errs.Wrap(errs.Unsupported, err, "find %s", tool).
				WithRemedy("apt-get install qemu-system-x86 e2fsprogs")
		}
	}
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return errs.Wrap(errs.Unsupported, err,
			"open /dev/net/tun").WithRemedy("run as root, and modprobe tun")
	}
	return f.Close()
}

// lookPath finds a program also in sbin, which the PATH of a daemon may lack.
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

// Adopt returns the VMs that an earlier process left; see onhost.VMs. It removes
// one whose start wasn't finished.
func (d *Driver) Adopt(ctx context.Context) ([]runtime.VM, error) { return d.vms.Adopt(ctx) }
