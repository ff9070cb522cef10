package frontend_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk/frontend"
)

// The test binary is also the first program of a VM, in an initramfs with modules and beside a disk with the programs
// that the tests call: there it runs its own tests, under a kernel that has an NBD client, with each front end.
const (
	guestModules = "/modules/load"
	guestPassed  = "guest: all passed"
)

func isGuest() bool {
	_, err := os.Stat(guestModules)
	return os.Getpid() == 1 && err == nil
}

// runAsGuest doesn't return: the VM ends.
func runAsGuest() {
	err := prepareGuest()
	if line, _ := os.ReadFile("/proc/cmdline"); strings.Contains(string(line), "dbgrun=") {
		debugGuest(string(line), err)
	}
	for _, kind := range []frontend.Kind{frontend.FUSE, frontend.NBD} {
		if err != nil {
			break
		}
		fmt.Printf("guest: front end %s\n", kind)
		// What writes its own device from within can wait for ever; the speed is measured by itself.
		err = guestRun("-test.v", "-test.timeout=240s", "-test.skip=Speed|Qemu|TestAbort|AVMWith|Fsck", kindEnv+"="+string(kind))
	}
	if err == nil {
		err = guestRun("-test.v", "-test.timeout=120s", "-test.run=TestSpeedInGuest", speedEnv+"=yes")
	}
	if err == nil {
		fmt.Println(guestPassed)
	} else {
		fmt.Println("guest:", err)
	}
	_ = unix.IoctlSetInt(1, unix.TCSBRK, 1) // the console has sent all
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

// guestRun runs this binary's tests; the last argument is for the environment.
func guestRun(args ...string) error {
	env := args[len(args)-1]
	cmd := exec.Command("/init", args[:len(args)-1]...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "TMPDIR=/tmp", env}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	return cmd.Run()
}

func prepareGuest() error {
	for _, m := range [][3]string{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}, {"tmpfs", "/tmp"}} {
		if err := errors.Join(os.MkdirAll(m[1], 0o755), unix.Mount(m[0], m[1], m[0], 0, "")); err != nil {
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
	if err := errors.Join(os.MkdirAll("/usr", 0o755), unix.Mount("/dev/vda", "/release", "ext4", unix.MS_RDONLY, "noload"),
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

func debugGuest(line string, err error) {
	fmt.Println("debug guest", err)
	_, rest, _ := strings.Cut(line, "dbgrun=")
	run, _, _ := strings.Cut(rest, " ")
	args := strings.Split(strings.TrimSpace(run), ",")
	env := strings.Split(args[len(args)-1], ";")
	go func() {
		time.Sleep(25 * time.Second)
		_ = os.WriteFile("/proc/sys/kernel/sysrq", []byte("1"), 0)
		_ = os.WriteFile("/proc/sysrq-trigger", []byte("w"), 0)
		for _, g := range []string{"/proc/*/task/*/stack"} {
			fs, _ := filepath.Glob(g)
			for _, f := range fs {
				b, _ := os.ReadFile(f)
				c, _ := os.ReadFile(filepath.Dir(f) + "/comm")
				if len(b) == 0 {
					continue
				}
				fmt.Printf("%s %s%s\n", f, c, b)
			}
		}
		ds, _ := filepath.Glob("/sys/kernel/debug/block/nbd0/*")
		fmt.Println(ds)
		out, _ := exec.Command("/bin/sh", "-c", "mount -t debugfs d /sys/kernel/debug; cd /sys/kernel/debug/block/nbd0 && for f in state hctx*/busy hctx*/state hctx*/dispatch hctx*/tags hctx*/run hctx*/sched_tags; do echo \"$f: $(cat $f)\"; done; cat /sys/block/nbd0/inflight").CombinedOutput()
		fmt.Println(string(out))
	}()
	cmd := exec.Command("/init", args[:len(args)-1]...)
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "TMPDIR=/tmp"}, env...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	fmt.Println("debug guest ended:", cmd.Run())
	_ = unix.IoctlSetInt(1, unix.TCSBRK, 1)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}
