package platform_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/runtime/runtimetest"
	"github.com/sluice-platform/sluice/test/v2host"
)

// TestOnV2Alone runs a machine, by the real platform and runc in a sandbox VM, on a kernel that has
// cgroup v2 alone.
func TestOnV2Alone(t *testing.T) {
	tree := t.TempDir()
	if err := os.Mkdir(filepath.Join(tree, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	v2host.Copy(t, shared.release, filepath.Join(tree, "platform"))
	// has mkfs.ext4, e2fsck, and what they link
	v2host.Copy(t, filepath.Join(shared.release, "usr"), filepath.Join(tree, "usr"))
	busybox, err := busyboxPath(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v2host.Copy(t, busybox, filepath.Join(tree, "bin/busybox"))
	if err := errors.Join(os.Symlink("usr/lib64", filepath.Join(tree, "lib64")),
		os.Symlink("usr/lib", filepath.Join(tree, "lib")),
		os.Symlink("busybox", filepath.Join(tree, "bin/cp"))); err != nil {
		t.Fatal(err)
	}
	v2host.Run(t, v2host.Host{
		Package: "internal/platform", Run: "^TestV2Machine$", Add: tree,
		Modules: []string{"fuse", "loop", "overlay", "veth", "tun", "nf_tables"},
		Kernel:  v2host.PureV2 + " " + runtimetest.ReleaseEnv + "=/platform",
	})
}

// TestV2Machine has a machine's memory bounded beside the platform's, a process in it killed for
// that and it told so, and the machine released in order.
func TestV2Machine(t *testing.T) {
	if !v2host.Inside() {
		t.Skip("needs a host with v2 alone; TestOnV2Alone runs it in one")
	}
	b := bindOf(newDisk(t), 1)
	b.Config.Resources.MemoryMiB = 96
	v := startVM(t)
	v.bind(b)
	v.await("healthy", inState(guestapi.StateHealthy))
	groups, err := filepath.Glob("/sys/fs/cgroup/sluice-test/*/" + string(v.ID()) + "/vm")
	if err != nil || len(groups) != 1 {
		t.Fatalf("cgroups of the VM: %v, %v", groups, err)
	}
	for file, want := range map[string]int{"machine/memory.max": 96 << 20,
		"init/memory.max":   guestapi.PlatformMemory - guestapi.BlockdMemory,
		"init/memory.min":   guestapi.PlatformMemory - guestapi.BlockdMemory,
		"blockd/memory.max": guestapi.BlockdMemory, "blockd/memory.min": guestapi.BlockdMemory,
		"memory.min": guestapi.PlatformMemory} {
		got, err := os.ReadFile(filepath.Join(groups[0], file))
		if err != nil || strings.TrimSpace(string(got)) != strconv.Itoa(want) {
			t.Errorf("%s is %q, want %d (%v)", file, got, want, err)
		}
	}
	if r := v.exec(shell("exec tail /dev/zero")); r.code != 137 ||
		!strings.Contains(r.stderr, "sluice: killed: the machine is out of memory") {
		t.Errorf("code %d, stderr %q", r.code, r.stderr)
	}
	if h := v.health(); h.OOM == nil || h.OOM.Kills != 1 {
		t.Errorf("the VM's state says %+v", h.OOM)
	}
	if h := v.release(b); h.State != guestapi.StateReleased {
		t.Errorf("state %s", h.State)
	}
}
