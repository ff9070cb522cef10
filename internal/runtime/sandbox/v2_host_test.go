package sandbox

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/runtime/runtimetest"
	"github.com/sluice-platform/sluice/test/v2host"
)

// TestOnV2Alone runs the whole suite on a kernel that has cgroup v2 alone.
func TestOnV2Alone(t *testing.T) {
	release := runtimetest.Release(t)
	tree := t.TempDir()
	v2host.Copy(t, release, filepath.Join(tree, "suite"))
	v2host.Run(t, v2host.Host{
		Package: "internal/runtime/sandbox",
		Run:     "^(TestConformance|TestOneVM|TestV2BesideNamedV1)$", Add: tree,
		Modules: []string{"fuse", "loop", "veth", "tun"},
		Kernel:  v2host.PureV2 + " " + runtimetest.ReleaseEnv + "=/suite",
	})
}

// TestV2BesideNamedV1 has a v1 hierarchy on a host with v2, as some programs make them: its VMs
// still are those of v2.
func TestV2BesideNamedV1(t *testing.T) {
	if !v2host.Inside() {
		t.Skip("needs a host of its own; TestOnV2Alone runs it in one")
	}
	named := t.TempDir()
	if err := unix.Mount("cgroup", named, "cgroup", 0, "none,name=some-program"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(named, 0); err != nil {
			t.Error(err)
		}
	})
	drv, err := newDriver(filepath.Join(t.TempDir(), "named"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := drv.(*Driver).Close(); err != nil {
			t.Error(err)
		}
	}()
	vm, err := drv.Start(t.Context(), runtime.Spec{ID: "00c0ffee", Release: runtimetest.Release(t)})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range ask(t, vm, runtimetest.Request{Op: "look"}).Seen.Mounts {
		if strings.HasPrefix(m, "/sys/fs/cgroup/") {
			t.Errorf("the VM sees %s", m)
		}
	}
	if err := vm.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}
