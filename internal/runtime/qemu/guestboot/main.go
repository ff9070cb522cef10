// Command guestboot is the first program in a qemu VM: it makes of a bare kernel what a sandbox VM's init finds, and
// then becomes the release's init. It is all that the initramfs has, besides kernel modules.
//
// Invariants: it keeps nothing running; what it prepares is the same in all VMs of a release, up to the mark
// MarkReady. There a VM may be saved. All that is a VM's own (its name, boot document, clock and randomness) it
// gets from the order that it reads after that.
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/runtime/qemu/bootdisk"
)

const initPath = "/usr/bin/sluice-init"

func main() {
	err := boot()
	fmt.Println(bootdisk.MarkFailed, err)
	endVM()
}

// endVM has the kernel restart, which ends the VM, once the console has sent all.
func endVM() {
	_ = unix.IoctlSetInt(1, unix.TCSBRK, 1)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

// boot returns only if it fails.
func boot() error {
	if err := mountKernelFiles("/"); err != nil {
		return err
	}
	arguments, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return fmt.Errorf("read kernel command line: %w", err)
	}
	if bytes.Contains(arguments, []byte(bootdisk.ProbeArgument)) {
		fmt.Println(bootdisk.MarkProbe)
		endVM()
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	if err := onhost.LoopbackUp(); err != nil {
		return err
	}
	if err := onhost.BringUp(guestapi.LinkName, guestapi.GuestLinkIP); err != nil {
		return err
	}
	if err := makeRoot(); err != nil {
		return err
	}
	// Programs reserve more than they use. On a host with much memory that goes well; in a small VM it shall too.
	if err := onhost.WriteFile("/proc/sys/vm/overcommit_memory", "1"); err != nil {
		return fmt.Errorf("let programs reserve memory: %w", err)
	}
	fmt.Println(bootdisk.MarkReady)
	order, err := awaitOrder()
	if err != nil {
		return err
	}
	if err := follow(order); err != nil {
		return err
	}
	if err := switchRoot(); err != nil {
		return err
	}
	fmt.Println(bootdisk.MarkInit)
	return becomeInit()
}

func becomeInit() error {
	null, err := unix.Open("/dev/null", unix.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open /dev/null: %w", err)
	}
	if err := unix.Dup3(null, 0, 0); err != nil {
		return fmt.Errorf("set stdin: %w", err)
	}
	if err := unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	files := unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &files, nil); err != nil {
		return fmt.Errorf("raise limit of open files: %w", err)
	}
	unix.Umask(0o022)
	// An ignored signal stays ignored over an exec, a caught one doesn't.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT)
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	return fmt.Errorf("run init: %w", syscall.Exec(initPath, []string{initPath, "init"}, env))
}
