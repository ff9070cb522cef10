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
// clock changes. It needs CAP_SYS_TIME.
//
// Before Linux 6.3 it does nothing: there a program that is executed doesn't enter the namespace,
// and one that is to start its children in another one can have no threads.
func ownUptime() error {
	var system unix.Utsname
	if err := unix.Uname(&system); err != nil {
		return fmt.Errorf("ask for the kernel's version: %w", err)
	}
	if !entersOnExec(unix.ByteSliceToString(system.Release[:])) {
		return nil
	}
	if _, err := os.Stat("/proc/self/timens_offsets"); errors.Is(err, os.ErrNotExist) {
		return nil // a kernel without such namespaces
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

// entersOnExec says whether a kernel of this release has a program that is executed enter the time
// namespace that was made for it.
func entersOnExec(release string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 6 || major == 6 && minor >= 3
}
