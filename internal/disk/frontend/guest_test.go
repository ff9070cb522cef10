package frontend_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk/frontend"
)

// The test binary is also the first program of a VM, in an initramfs with modules and beside a disk
// with the programs that the tests call: there it runs its own tests, under a kernel that has an
// NBD client, with each front end.
const (
	guestModules = "/modules/load"
	guestPassed  = "guest: all passed"
	guestSpeed   = "sluice.test=speed" // on the kernel's command line: measure, and nothing else
)

func isGuest() bool {
	_, err := os.Stat(guestModules)
	return os.Getpid() == 1 && err == nil
}

// runAsGuest doesn't return: the VM ends.
func runAsGuest() {
	err := prepareGuest()
	if err == nil {
		err = testInGuest()
	}
	if err == nil {
		fmt.Println(guestPassed)
	} else {
		fmt.Println("guest:", err)
	}
	_ = unix.IoctlSetInt(1, unix.TCSBRK, 1) // the console has sent all
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

func testInGuest() error {
	arguments, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	if strings.Contains(string(arguments), guestSpeed) {
		// it chooses itself
		return guestRun(frontend.Auto, "-test.v", "-test.timeout=120s",
			"-test.run=TestSpeedInGuest")
	}
	for _, kind := range []frontend.Kind{frontend.FUSE, frontend.NBD} {
		fmt.Printf("guest: front end %s\n", kind)
		// What writes its own device from within can wait for ever.
		if err := guestRun(kind, "-test.v", "-test.timeout=240s",
			"-test.skip=Speed|Qemu|TestAbort|AVMWith|Fsck"); err != nil {
			return err
		}
	}
	return nil
}

// guestRun runs this binary's tests with a front end.
func guestRun(kind frontend.Kind, args ...string) error {
	cmd := exec.Command("/init", args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "TMPDIR=/tmp",
		kindEnv + "=" + string(kind)}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	return cmd.Run()
}

func prepareGuest() error {
	for _, m := range [][3]string{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"},
		{"tmpfs", "/tmp"}} {
		if err := errors.Join(os.MkdirAll(m[1], 0o755),
			unix.Mount(m[0], m[1], m[0], 0, "")); err != nil {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	list, err := os.ReadFile(guestModules)
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(list)) {
		f, err := os.Open("/modules/" + name)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	if err := errors.Join(os.MkdirAll("/usr", 0o755),
		unix.Mount("/dev/vda", "/release", "ext4", unix.MS_RDONLY, "noload"),
		unix.Mount("/release/usr", "/usr", "", unix.MS_BIND, "")); err != nil {
		return fmt.Errorf("mount the programs: %w", err)
	}
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+name, "/"+name); err != nil {
			return err
		}
	}
	return os.MkdirAll("/etc", 0o755)
}
