package runtimetest

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/runtime"
)

// testWalls has root of a VM try what would reach the host or another VM. First the same program
// tries it as real root without walls: there each attempt must succeed, or it would show nothing.
func testWalls(t *testing.T, e *env) {
	if e.OwnKernel {
		t.Skip("what a VM does to its own kernel is its own business")
	}
	other := e.start(func(s *runtime.Spec) { s.CacheBytes = cacheSize })
	vm := e.start(func(s *runtime.Spec) { s.CacheBytes = cacheSize })
	open := strings.Split(withoutWalls(t, filepath.Join(e.Release, "usr/bin/sluice-init")), "\n")
	for _, hole := range []string{"its root is the host's", "it opens other VMs' disks",
		"it sets kernel/core_pattern", "it writes to its own sysfs",
		"it writes to its own proc", "the kernel answers bpf", "it controls a loop device"} {
		if !slices.Contains(open, hole) {
			t.Errorf("the attempts don't find a hole where there is one: %s", hole)
		}
	}
	for _, v := range []runtime.VM{vm, other} {
		if got := mustAsk(t, v, Request{Op: "walls"}).Text; got != "" {
			t.Errorf("root of a VM reaches beyond it:\n%s", got)
		}
	}
	if a, b := mustAsk(t, vm, Request{Op: "look"}).Seen.UserNS,
		mustAsk(t, other, Request{Op: "look"}).Seen.UserNS; a == b {
		t.Errorf("two VMs have the same ids: %s", a)
	}
}

// withoutWalls runs the guest as real root, in a mount namespace of its own, and returns what it
// can do.
func withoutWalls(t *testing.T, guest string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), guest, "walls", "")
	cmd.Dir = t.TempDir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the guest on the host: %v", err)
	}
	return strings.TrimSpace(string(out))
}
