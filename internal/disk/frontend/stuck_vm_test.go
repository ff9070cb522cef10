package frontend_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/runtime/onhost"
)

// TestAVMWithAStuckDiskServerCanBeKilled puts a process that waits for its own device into a VM's
// cgroup: what kills VMs must get rid of it by itself.
func TestAVMWithAStuckDiskServerCanBeKilled(t *testing.T) {
	layout, err := onhost.HostLayout()
	if err != nil {
		t.Fatal(err)
	}
	vm := onhost.Cgroups{Layout: layout, Parent: "sluice-stuck-test", ID: "57ac0001"}
	if err := vm.Create(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if err := vm.Remove(ctx); err != nil {
			t.Error(err)
		}
	})
	path := t.TempDir() + "/disk"
	newFileDevice(t, path, testSize)
	t.Setenv(stuckEnv, "yes")
	s := startServer(t, path)
	pid, thread := s.cmd.Process.Pid, s.blockdev
	for _, file := range append(vm.Joins(), filepath.Join(vm.Inner(vm.Unified), "cgroup.procs")) {
		if err := os.WriteFile(file, []byte(fmt.Sprint(pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the thread waits uninterruptibly", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", pid, thread))
		return err == nil && strings.Contains(string(stat), ") D ")
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := vm.KillAndWait(ctx); err != nil {
		t.Fatal(err)
	}
}
