package onhost

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestKillWithoutCgroupKill kills what is in a cgroup on a kernel without cgroup.kill; a directory
// stands for it.
func TestKillWithoutCgroupKill(t *testing.T) {
	c := Cgroups{Layout: Layout{Unified: t.TempDir()}, Parent: "sluice/w1", ID: "0123abcd"}
	if err := os.MkdirAll(c.Inner(c.Unified), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	procs := fmt.Sprintf("%d\n", cmd.Process.Pid)
	if err := os.WriteFile(filepath.Join(c.Inner(c.Unified), "cgroup.procs"), []byte(procs),
		0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.KillAll(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Errorf("the process ended with %v", err)
	}
	gone := Cgroups{Layout: c.Layout, Parent: "sluice/w1", ID: "4567cdef"}
	if err := gone.KillAll(); err != nil {
		t.Errorf("kill what isn't there: %v", err)
	}
}
