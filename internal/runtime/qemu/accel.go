package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/runtime/qemu/bootdisk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// kvmLimit is how long a kernel may take to boot with KVM on a host without pressure. It usually
// takes less than a second.
const kvmLimit = 3 * time.Second

// doubtAfter is for how long KVM counts as broken after a boot that was merely too slow.
const doubtAfter = time.Hour

// accel is what runs a VM's instructions.
type accel struct {
	KVM    bool   `json:"kvm"`
	Reason string `json:"reason"` // for people: why not
	// of the host: another one may have other modules, or firmware settings
	Boot string `json:"host_up"`
	// false: it took too long, which may have been the host's load
	Sure  bool      `json:"sure"`
	Tried time.Time `json:"tried"`
}

// valid reports whether the result can be used without a new trial. An uncertain result is used for
// a while, because a trial takes seconds.
func (a accel) valid(bootID string) bool {
	return a.Boot == bootID && (a.Sure || time.Since(a.Tried) < doubtAfter)
}

func (a accel) String() string {
	if a.KVM {
		return "kvm"
	}
	return "tcg"
}

// arguments of QEMU for it.
func (a accel) arguments() []string {
	if a.KVM {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	// Hide that the CPU copies bytes fast: the kernel would copy memory with an instruction that
	// TCG translates into a loop over single bytes.
	return []string{"-accel", "tcg,thread=multi,tb-size=128", "-cpu", "max,-erms,-fsrm"}
}

// Acceleration says by what the VMs of a release run.
func (d *Driver) Acceleration(ctx context.Context, release string) (fleet.Acceleration, error) {
	g, err := kernelOf(release)
	if err != nil {
		return fleet.Acceleration{}, err
	}
	a, err := d.accelFor(ctx, g)
	return fleet.Acceleration{Kind: a.String(), Reason: a.Reason}, err
}

// accelFor returns the acceleration of a kernel. It finds out by booting the kernel, once per
// kernel and boot of the host, and caches the result.
func (d *Driver) accelFor(ctx context.Context, g guest) (a accel, err error) {
	path := filepath.Join(d.cfg.CacheDir, "accel-"+g.KernelID+".json")
	err = d.once(ctx, "try KVM", func() error {
		if b, err := os.ReadFile(path); err == nil && json.Unmarshal(b, &a) == nil &&
			a.valid(d.vms.BootID()) {
			return nil
		}
		a = tryKVM(ctx, g)
		if err := context.Cause(ctx); err != nil {
			return errs.Wrap(errs.Unavailable, err, "try whether KVM boots a kernel")
		}
		a.Boot, a.Tried = d.vms.BootID(), time.Now()
		d.cfg.Logger.InfoContext(ctx, "acceleration of VMs is known", "accel", a.String(),
			"reason", a.Reason)
		b, err := json.Marshal(a)
		if err != nil {
			return errs.Wrap(errs.Internal, err, "encode acceleration")
		}
		return d.makeWhole(path, func(tmp string) error { return os.WriteFile(tmp, b, 0o600) })
	})
	if err == nil && a.Boot == "" { // another caller found it out
		b, readErr := os.ReadFile(path)
		if err = readErr; err == nil {
			err = json.Unmarshal(b, &a)
		}
	}
	return a, err
}

// tryKVM boots the kernel with nothing but memory and a console.
func tryKVM(ctx context.Context, g guest) accel {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		why := "/dev/kvm can't be opened: " + err.Error()
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENXIO) ||
			errors.Is(err, unix.ENODEV) {
			why = "this host has no /dev/kvm"
		}
		return accel{Sure: true, Reason: why}
	}
	_ = f.Close()
	qemu, err := lookPath(program)
	if err != nil {
		return accel{Reason: err.Error()}
	}
	// without KVM, a busy host would become even busier
	limit := onhost.Patient(kvmLimit)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	a := accel{KVM: true}
	args := append(a.arguments(), "-nodefaults", "-no-user-config", "-display", "none",
		"-no-reboot", "-machine", "q35", "-m", "192M",
		"-kernel", g.Kernel, "-initrd", g.Initrd, "-serial", "stdio", "-append",
		commandLine(a)+" "+bootdisk.ProbeArgument)
	args = append(args, firmware()...) // as its VMs
	cmd := exec.CommandContext(ctx, qemu, args...)
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	switch {
	case bytes.Contains(out, []byte(bootdisk.MarkProbe)):
		return accel{KVM: true, Sure: true}
	case ctx.Err() != nil:
		return accel{Reason: fmt.Sprintf("/dev/kvm is there, but doesn't boot a kernel within %v",
			limit.Round(time.Second))}
	}
	first, _, _ := bytes.Cut(bytes.TrimSpace(stderr.Bytes()), []byte("\n"))
	return accel{Sure: true, Reason: fmt.Sprintf(
		"/dev/kvm is there, but doesn't boot a kernel: %v: %s", err, first)}
}

// commandLine returns the kernel's command line.
func commandLine(a accel) string {
	line := "console=ttyS0 quiet 8250.nr_uarts=1 panic=-1 reboot=t cryptomgr.notests random.trust_cpu=on " +
		"rcupdate.rcu_expedited=1 memhp_default_state=online cgroup_no_v1=all"
	if !a.KVM {
		// An emulated CPU needs no mitigations. Its count of cycles is the host's, and how fast it
		// counts can't be calibrated where others run too: clocks went 17 times too fast by it, of
		// all VMs that are resumed from the one that was saved. So the time comes from the HPET.
		line += " mitigations=off no_timer_check tsc=unstable lpj=4000000"
	}
	return line
}
