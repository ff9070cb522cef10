//go:build qemu

package frontend_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestQemuGuest runs this package's tests in a VM whose kernel has an NBD client, with both front
// ends, and in another VM compares their speed. On a host with such a kernel the tests run there
// too, by SLUICE_TEST_FRONTEND=nbd.
func TestQemuGuest(t *testing.T) {
	boot := prepareVM(t)
	t.Run("tests", func(t *testing.T) { runVM(t, boot, "") })
	t.Run("speed", func(t *testing.T) { runVM(t, boot, guestSpeed) })
}

// prepareVM returns the arguments of QEMU for a VM in which this binary is the first program, but
// for the kernel's.
func prepareVM(t *testing.T) (arguments []string) {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	binary, initramfs, programs := filepath.Join(dir, "init"), filepath.Join(dir, "initramfs"),
		filepath.Join(dir, "programs")
	output(t, root, []string{"CGO_ENABLED=0"}, "go", "test", "-c", "-tags", "qemu", "-trimpath",
		"-ldflags=-s -w", "-o", binary, "./internal/disk/frontend")
	id := output(t, root, nil, "scripts/build-guest.sh", "bin/guests")
	release := output(t, root, nil, "scripts/build-release.sh", "bin/releases")
	output(t, root, nil, "go", "run", "./internal/runtime/qemu/mkinitramfs", "-init", binary,
		"-modules", ".cache/kernel/current/modules",
		"-o", initramfs, "virtio_pci", "virtio_blk", "fuse", "loop", "nbd")
	output(t, root, nil, "mkfs.ext4", "-q", "-F", "-d", filepath.Join("bin/releases", release),
		programs, "192m")
	// Without KVM: on some hosts it is there and doesn't boot a kernel.
	return []string{"-accel", "tcg,thread=multi", "-cpu", "max,-erms,-fsrm", "-smp",
		"2", "-m", "1536",
		"-machine", "q35", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-serial", "stdio",
		"-kernel", filepath.Join(root, "bin/guests", id, "vmlinux"), "-initrd", initramfs,
		"-drive", "if=virtio,format=raw,read-only=on,file=" + programs}
}

func runVM(t *testing.T, boot []string, argument string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", append(slices.Clone(boot), "-append",
		"console=ttyS0 quiet 8250.nr_uarts=1 panic=-1 reboot=t cryptomgr.notests random.trust_cpu=on mitigations=off "+argument)...)
	var console bytes.Buffer
	cmd.Stdout, cmd.Stderr = &console, &console
	err := cmd.Run()
	log := strings.ReplaceAll(console.String(), "\r", "")
	if err != nil || !strings.Contains(log, guestPassed) {
		t.Fatalf("in the guest: %v\n%s", err, log)
	}
	for line := range strings.Lines(log) {
		if strings.HasPrefix(line, "RESULT ") || strings.Contains(line, "--- ") ||
			strings.HasPrefix(line, "guest: ") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// output runs a program in the root of the repository, and returns what it says on stdout.
func output(t *testing.T, root string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	if strings.Contains(name, "/") {
		cmd.Path = filepath.Join(root, name)
	}
	cmd.Dir, cmd.Env = root, append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}
