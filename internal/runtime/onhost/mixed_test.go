package onhost

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/test/v2host"
)

// TestMixedLimits bounds a VM on a host that has cpu in v1 and the rest in v2, each where it is;
// TestOnMixedHost runs it in a VM.
func TestMixedLimits(t *testing.T) {
	if !v2host.Inside() {
		t.Skip("needs a host of its own, whose controllers it moves")
	}
	dir := t.TempDir()
	if err := unix.Mount("cgroup", dir, "cgroup", 0, "cpu,cpuacct"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	l, err := HostLayout()
	if err != nil {
		t.Fatal(err)
	}
	for controller, want := range map[string]string{"cpu": "v1", "memory": "v2", "pids": "v2",
		"nonsense": ""} {
		if got := l.Version(controller); got != want {
			t.Errorf("%s is in %q, want %q", controller, got, want)
		}
	}
	c := newCgroups(t, l, "sluice-test/mixed", "0123abcd")
	if err := c.SetLimits(fleet.Resources{CPUMillis: 1500, MemoryMiB: 64}); err != nil {
		t.Fatal(err)
	}
	wantFile(t, filepath.Join(c.Outer(dir), "cpu.cfs_quota_us"), "150000")
	wantFile(t, filepath.Join(c.Outer(l.Unified), "memory.max"), fmt.Sprint(64<<20+memorySlack))
	wantFile(t, filepath.Join(c.Outer(l.Unified), "pids.max"),
		fmt.Sprint(fleet.LeastProcesses+guestapi.PlatformProcesses))
}

// TestAllV2 wants a host told by what bounds a VM alone, and one refused by name whose controllers
// are some here, some there.
func TestAllV2(t *testing.T) {
	v1 := func(controllers ...string) []Hierarchy {
		return []Hierarchy{{Mount: "/sys/fs/cgroup/x", Options: strings.Join(controllers, ","),
			Controllers: controllers}}
	}
	for name, c := range map[string]struct {
		l     Layout
		allV2 bool
		says  string // of what is refused
	}{
		"pure v2": {Layout{V2: []string{"cpu", "io", "memory", "pids"}}, true, ""},
		"v1":      {Layout{V1: v1("cpu", "memory", "pids", "freezer")}, false, ""},
		"v1 with io in v2": {Layout{V1: v1("cpu", "memory", "pids"), V2: []string{"io"}}, false,
			""},
		"v2 with net_cls": {Layout{V1: v1("net_cls"), V2: []string{"cpu", "memory", "pids"}},
			true, ""},
		"v2 with a named one": {Layout{V1: []Hierarchy{{Mount: "/x", Options: "none,name=systemd"}},
			V2: []string{"cpu", "memory", "pids"}}, true, ""},
		"mixed": {Layout{V1: v1("cpu"), V2: []string{"memory", "pids"}}, false,
			"cpu in v1, and memory, pids in v2"},
		"no pids": {Layout{V1: v1("cpu", "memory")}, false, "pids"},
	} {
		allV2, err := c.l.AllV2()
		if allV2 != c.allV2 || (err != nil) != (c.says != "") {
			t.Errorf("%s: %v, %v", name, allV2, err)
		}
		if c.says != "" && (!errs.Is(err, errs.Unsupported) ||
			!strings.Contains(err.Error(), c.says) || errs.RemedyOf(err) == "") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNoControllerIsRefused wants the name of what is missing, and nothing made.
func TestNoControllerIsRefused(t *testing.T) {
	c := Cgroups{Layout: Layout{Unified: t.TempDir(), V2: []string{"cpu", "pids"}},
		Parent: "sluice-test/none", ID: "0123abcd"}
	err := c.Create()
	if !errs.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), "for memory,") ||
		errs.RemedyOf(err) == "" {
		t.Errorf("a host without memory controller: %v", err)
	}
	if left, err := os.ReadDir(c.Unified); len(left) != 0 || err != nil {
		t.Errorf("made all the same: %v, %v", left, err)
	}
}
