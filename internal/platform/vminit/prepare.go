package vminit

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/guestapi"
)

// lastToKill makes the kernel kill any process of the machine before one of the platform, whose end
// would end the whole VM. The platform's processes inherit it from init.
const lastToKill = "-900"

// prepare sets up what neither the kernel nor the runtime has set up.
func prepare() error {
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
	// Refused without CAP_SYS_RESOURCE. The machine's processes go before the platform all the
	// same: see package innerinit.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte(lastToKill), 0)
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring up the loopback: %w", err)
	}
	return nil
}

// identify makes the VM the one that its boot document names.
func identify(boot guestapi.Boot) error {
	if boot.VM != "" {
		if err := unix.Sethostname([]byte("vm-" + string(boot.VM))); err != nil {
			return fmt.Errorf("set hostname: %w", err)
		}
	}
	return seed(boot.Seed)
}

// mountMissing mounts on a directory if it is empty: the runtime has set up any other.
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
