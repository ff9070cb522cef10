package sandbox

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/runtime/onhost"
)

// ownUptime has the time since the start begin now, for what this process becomes and starts: the
// VM's, not the host's. It is the kernel that says so, so that the ages of processes fit. No other
// clock changes. It needs CAP_SYS_TIME. Without time namespaces (Linux before 5.6) it does nothing.
func ownUptime() error {
	if _, err := os.Stat("/proc/self/timens_offsets"); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return fmt.Errorf("ask for the time since the start: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWTIME); err != nil {
		return fmt.Errorf("make time namespace: %w", err)
	}
	offset := fmt.Sprintf("boottime -%d 0", now.Sec)
	if err := onhost.WriteFile("/proc/self/timens_offsets", offset); err != nil {
		return fmt.Errorf("begin the VM's time since the start: %w", err)
	}
	return nil
}
