// Command guestboot is the first program in a qemu VM: it makes of a bare kernel what a sandbox
// VM's init finds, and then becomes the release's init. It is all that the initramfs has, besides
// kernel modules.
//
// Invariants: what it prepares is the same in all VMs of a release. The order has everything that
// is a VM's own: its name, boot document, clock and randomness. One process of guestboot stays
// beside the release's init, waits for the order, follows it and ends. Until then the VM may be
// saved, best at MarkWarm, when the platform waits for nothing else.
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/runtime/qemu/bootdisk"
)

const initPath = "/usr/bin/sluice-init"

func main() {
	err := error(nil)
	if os.Getpid() == 1 {
		err = boot()
	} else if err = obey(); err == nil {
		return
	}
	fmt.Println(bootdisk.MarkFailed, err)
	endVM()
}

// endVM waits until the console has sent everything, and restarts the kernel, which ends the VM.
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
	// Allow overcommit: programs reserve more memory than they use, and must start in a small VM
	// too.
	if err := onhost.WriteFile("/proc/sys/vm/overcommit_memory", "1"); err != nil {
		return fmt.Errorf("let programs reserve memory: %w", err)
	}
	if err := switchRoot(); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Dir(guestapi.BootFile), 0o700); err != nil {
		return err
	}
	fmt.Println(bootdisk.MarkReady)
	// This program's file is gone; the kernel still has it.
	waiting := exec.Command("/proc/self/exe") //nolint:noctx // init reaps it
	waiting.Stdout, waiting.Stderr = os.Stdout, os.Stderr
	if err := waiting.Start(); err != nil {
		return fmt.Errorf("wait for the order: %w", err)
	}
	return becomeInit()
}

// obey waits for the order and follows it.
func obey() error {
	order, err := awaitOrder()
	if err != nil {
		return err
	}
	if err := follow(order); err != nil {
		return err
	}
	fmt.Println(bootdisk.MarkInit)
	return nil
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
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root"}
	return fmt.Errorf("run init: %w", syscall.Exec(initPath, []string{initPath, "init"}, env))
}
