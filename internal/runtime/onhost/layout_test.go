package onhost

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const controllersFile = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t1\t1\ncpuacct\t1\t1\t1\nmemory\t3\t1\t1\n"

func TestReadLayout(t *testing.T) {
	const (
		unified = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
		cpu     = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:5 - cgroup cgroup rw,cpu,cpuacct\n"
		again   = "90 31 0:29 / /other/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
		part    = "91 31 0:35 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
		named   = "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
		pure    = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
	)
	for name, c := range map[string]struct {
		mounts string
		v2     string
		v1     []string // options at mount
	}{
		"hybrid": {cpu + named + unified, "/sys/fs/cgroup/unified",
			[]string{"cpu,cpuacct at /sys/fs/cgroup/cpu,cpuacct",
				"none,name=systemd at /sys/fs/cgroup/systemd"}},
		"mounted twice": {cpu + again + unified, "/sys/fs/cgroup/unified",
			[]string{"cpu,cpuacct at /sys/fs/cgroup/cpu,cpuacct"}},
		"a part only": {part + unified, "/sys/fs/cgroup/unified", nil},
		"pure v2":     {pure, "/sys/fs/cgroup", nil},
	} {
		l, err := ReadLayout(strings.NewReader(c.mounts), strings.NewReader(controllersFile))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var v1 []string
		for _, h := range l.V1 {
			v1 = append(v1, h.Options+" at "+h.Mount)
		}
		if l.Unified != c.v2 || strings.Join(v1, ";") != strings.Join(c.v1, ";") {
			t.Errorf("%s: v2 %q, v1 %q", name, l.Unified, v1)
		}
	}
	if _, err := ReadLayout(strings.NewReader(cpu),
		strings.NewReader(controllersFile)); !errs.Is(err, errs.Unsupported) {
		t.Errorf("no v2 at all: %v", err)
	}
}

// TestLimitsOnPureV2 checks what is written where on a host without v1, on a directory that stands
// for its cgroups.
func TestLimitsOnPureV2(t *testing.T) {
	c := Cgroups{Layout: Layout{Unified: t.TempDir()}, Parent: "sluice/w1", ID: "0123abcd"}
	dir := c.Outer(c.Unified)
	if err := os.MkdirAll(c.Inner(c.Unified), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"cpu.max", "memory.max", "memory.swap.max", "pids.max", "memory.min",
		"vm/memory.min"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bytes := func(mib int64) string { return strconv.FormatInt(mib<<20+memorySlack, 10) }
	protected := strconv.Itoa(guestapi.PlatformMemory)
	for _, step := range []struct {
		limits            fleet.Resources
		cpu, memory, swap string
	}{
		{fleet.Resources{CPUMillis: 1500, MemoryMiB: 64}, "150000 100000", bytes(64), "0"},
		{fleet.Resources{CPUMillis: 1}, "1000 100000", "max", "max"},
		{fleet.Resources{MemoryMiB: 1}, "max 100000", bytes(1), "0"},
	} {
		// a real one doesn't keep what was there
		for _, f := range []string{"cpu.max", "memory.max", "memory.swap.max"} {
			if err := os.Truncate(filepath.Join(dir, f), 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.SetLimits(step.limits); err != nil {
			t.Fatal(err)
		}
		for f, want := range map[string]string{"cpu.max": step.cpu, "memory.max": step.memory,
			"memory.swap.max": step.swap,
			"memory.min":      protected, "vm/memory.min": protected} {
			if got, _ := os.ReadFile(filepath.Join(dir, f)); string(got) != want {
				t.Errorf("%+v: %s is %q, want %q", step.limits, f, got, want)
			}
		}
	}
}
