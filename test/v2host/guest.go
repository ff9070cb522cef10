package v2host

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// guestEnv is set by the kernel's command line for the first program, and inherited by the
	// tests.
	guestEnv = "SLUICE_V2HOST"
	argsFile = "v2host-args" // in the root: arguments of the tests, one per line
	exitMark = "v2host: the tests exited with "
	testPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

	guestPatience = 6 * time.Minute // after which a VM ends whatever its tests do
)

// Inside reports whether this process runs in a VM that Run has made.
func Inside() bool { return os.Getenv(guestEnv) != "" }

// Main is to be called first in TestMain. In a VM's first process it runs the tests, tells how they
// ended, and ends the VM. In any other process it returns at once.
func Main() {
	if !Inside() || os.Getpid() != 1 {
		return
	}
	time.AfterFunc(guestPatience, powerOff)
	code, err := runTests()
	if err != nil {
		fmt.Println("v2host:", err)
	}
	fmt.Printf("\n%s%d\n", exitMark, code)
	powerOff()
}

// powerOff ends the VM once the console has sent all.
func powerOff() {
	_ = unix.IoctlSetInt(1, unix.TCSBRK, 1)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

func runTests() (int, error) {
	if err := prepare(); err != nil {
		return -1, fmt.Errorf("prepare the VM: %w", err)
	}
	args, err := os.ReadFile("/" + argsFile)
	if err != nil {
		return -1, err
	}
	const program = "/v2host.test" // its name is in its processes', and init's is in those of VMs
	if err := os.Link("/init", program); err != nil {
		return -1, err
	}
	tests := exec.Command(program, strings.Fields(string(args))...)
	tests.Stdout, tests.Stderr, tests.Dir = os.Stdout, os.Stderr, "/tmp"
	tests.Env = append(os.Environ(), testPath, "HOME=/tmp", "TMPDIR=/tmp")
	if err := tests.Start(); err != nil {
		return -1, err
	}
	for { // whatever loses its parent is this process's
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return -1, fmt.Errorf("wait for the tests: %w", err)
		case pid == tests.Process.Pid && status.Signaled():
			return -1, fmt.Errorf("the tests were killed by signal %v", status.Signal())
		case pid == tests.Process.Pid:
			return status.ExitStatus(), nil
		}
	}
}

// prepare makes of the initramfs a host with cgroup v2 alone.
func prepare() error {
	if err := leaveFirstRoot(); err != nil {
		return err
	}
	for _, m := range []struct{ kind, dir, options string }{
		{"proc", "/proc", ""}, {"sysfs", "/sys", ""}, {"devtmpfs", "/dev", ""},
		{"tmpfs", "/tmp", ""}, {"tmpfs", "/run", ""},
		{"tmpfs", "/var/tmp", ""}, {"devpts", "/dev/pts", ""}, {"tmpfs", "/dev/shm", ""},
		{"cgroup2", "/sys/fs/cgroup", "nsdelegate,memory_recursiveprot"}, // as systemd has it
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, m.options); err != nil &&
			!errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	return loadModules("/modules")
}

// leaveFirstRoot puts a mount above the kernel's first root, which can't be left by pivot_root.
func leaveFirstRoot() error {
	if err := unix.Mount("/", "/newroot", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind the root: %w", err)
	}
	if err := unix.Chdir("/newroot"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	return errors.Join(unix.Chroot("."), unix.Chdir("/"))
}

// loadModules loads what dir/load names, in that order.
func loadModules(dir string) error {
	list, err := os.ReadFile(filepath.Join(dir, "load"))
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(list)) {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load module %s: %w", name, err)
		}
	}
	return nil
}
