package vminit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/guestapi"
)

// prepare makes what the kernel or the runtime has not made.
func prepare(boot guestapi.Boot) error {
	for _, m := range []struct{ kind, target, options string }{
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"devtmpfs", "/dev", "mode=755"},
		{"tmpfs", "/run", "mode=755"},
		{"tmpfs", "/tmp", "mode=1777"},
	} {
		if err := mountMissing(m.kind, m.target, m.options); err != nil {
			return err
		}
	}
	if boot.VM != "" {
		if err := unix.Sethostname([]byte("vm-" + string(boot.VM))); err != nil {
			return fmt.Errorf("set hostname: %w", err)
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring up the loopback: %w", err)
	}
	return seed(boot.Seed)
}

// platformOOMScore keeps the platform's processes, which inherit it, from being chosen when the VM's memory is used
// up, for as long as there is any user process: many small ones must not cost the machine its blockd.
const platformOOMScore = "-900"

// outliveUserCode is an attempt: a VM without the right to it still works.
func outliveUserCode(ctx context.Context, log *slog.Logger) {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(platformOOMScore), 0); err != nil {
		log.WarnContext(ctx, "the platform has no precedence over user code when memory runs out", "error", err)
	}
}

// mountMissing mounts where there is nothing yet: a directory with something in it is as somebody wants it.
func mountMissing(kind, target, options string) error {
	entries, err := os.ReadDir(target)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.Mkdir(target, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", target, err)
		}
	} else if err != nil {
		return fmt.Errorf("look at %s: %w", target, err)
	}
	if len(entries) > 0 || kind == "tmpfs" && target == "/tmp" {
		return nil
	}
	if err := unix.Mount(kind, target, kind, unix.MS_NOSUID, options); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}
