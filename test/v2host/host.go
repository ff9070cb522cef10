// Package v2host runs a package's tests in a VM whose kernel has cgroup v2 alone, which few
// machines that build have.
//
// The VM is QEMU with Debian's kernel, as qemu VMs have it, emulated where need be. Its first
// program is the test binary itself (Main), and its root is in memory: nothing but the console
// leads out. It ends with its tests.
package v2host

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Patience is for a VM's whole life, on a host that has other things to do.
const Patience = 10 * time.Minute

// Host is what the VM is to have.
type Host struct {
	Package string   // path of the package, below the repository's root
	Run     string   // pattern of its tests
	Modules []string // of the kernel
	Add     string   // directory whose files are added to the VM's root; may be empty
	Kernel  string   // more arguments of the kernel
}

// PureV2 has the kernel refuse cgroup v1.
const PureV2 = "cgroup_no_v1=all"

// Run runs tests in a VM, and fails with what they say unless all of them ran there and passed. It
// returns what the console said.
func Run(t *testing.T, h Host) string {
	t.Helper()
	root := repository(t)
	dir := t.TempDir()
	initramfs := build(t, root, dir, h)
	args := []string{"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine",
		"q35", "-m", "1536M",
		"-accel", "tcg,tb-size=128", "-cpu", "max,-erms,-fsrm", "-serial", "stdio",
		"-kernel", filepath.Join(root, ".cache/kernel/current/vmlinux"), "-initrd", initramfs,
		"-append",
		"console=ttyS0 quiet 8250.nr_uarts=1 panic=-1 reboot=t cryptomgr.notests random.trust_cpu=on mitigations=off " +
			"no_timer_check tsc=unstable lpj=4000000 " + guestEnv + "=yes " + h.Kernel}
	if rom := "/usr/share/qemu/qboot.rom"; exists(rom) {
		args = append(args, "-bios", rom)
	}
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	// The VM ends with the thread that started it, also when the tests are killed.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	began := time.Now()
	out, err := cmd.CombinedOutput()
	console := strings.ReplaceAll(string(out), "\r", "")
	t.Logf("the VM ran for %v (%v) and said:\n%s",
		time.Since(began).Round(time.Millisecond), err, console)
	judge(t, console)
	return console
}

// judge wants that tests ran, that all passed, and that none was left out.
func judge(t *testing.T, console string) {
	t.Helper()
	switch {
	case !strings.Contains(console, exitMark+"0\n"):
		t.Fatal("the tests in the VM failed")
	case !strings.Contains(console, "--- PASS: "):
		t.Fatal("no test ran in the VM")
	}
	if skipped := regexp.MustCompile(`(?m)^ *--- SKIP: .*$`).FindAllString(console,
		-1); skipped != nil {
		t.Fatalf("left out in the VM, too:\n%s", strings.Join(skipped, "\n"))
	}
}

// build makes the VM's initramfs, with the tests as its first program, and fetches the kernel if it
// isn't there.
func build(t *testing.T, root, dir string, h Host) string {
	t.Helper()
	program, initramfs, tree := filepath.Join(dir, "tests"), filepath.Join(dir, "initramfs"),
		filepath.Join(dir, "tree")
	if h.Add != "" {
		Copy(t, h.Add, tree)
	} else if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	arguments := []string{"-test.v", "-test.count=1", "-test.timeout=5m", "-test.run=" + h.Run}
	if err := os.WriteFile(filepath.Join(tree, argsFile), []byte(strings.Join(arguments, "\n")),
		0o600); err != nil {
		t.Fatal(err)
	}
	if !exists(filepath.Join(root, ".cache/kernel/current/vmlinux.sha256")) {
		command(t, root, filepath.Join(root, "scripts/build-guest.sh"),
			filepath.Join(root, "bin/guests"))
	}
	command(t, root, "go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", program,
		"./"+h.Package)
	pack := []string{"run", "./internal/runtime/qemu/mkinitramfs", "-init", program, "-add", tree,
		"-modules", filepath.Join(root, ".cache/kernel/current/modules"), "-o", initramfs}
	command(t, root, "go", append(pack, h.Modules...)...)
	return initramfs
}

// Copy copies a directory, to where nothing is yet.
func Copy(t *testing.T, from, to string) {
	t.Helper()
	command(t, "/", "cp", "-r", from, to)
}

func command(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
}

// repository finds the root of the sources: tests run in their package's directory.
func repository(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for !exists(filepath.Join(dir, "go.mod")) {
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the tests")
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
