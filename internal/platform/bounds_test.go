package platform_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/memcg"
)

// onHost returns the process of this host that runs a command line.
func onHost(t *testing.T, args ...string) int {
	t.Helper()
	want := []byte(strings.Join(args, "\x00") + "\x00")
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if got, err := os.ReadFile(file); err == nil && bytes.Equal(got, want) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			return pid
		}
	}
	t.Fatalf("no process runs %q", args)
	return 0
}

// mostProcesses reads the bound of the cgroup that a process is in, or of one above it.
func mostProcesses(t *testing.T, pid int, up string) string {
	t.Helper()
	own, err := memcg.Of(pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range own {
		if text, err := os.ReadFile(filepath.Join(g.Dir, up, "pids.max")); err == nil {
			return strings.TrimSpace(string(text))
		}
	}
	t.Fatal("no cgroup of it bounds processes")
	return ""
}

// TestProcessesAreBoundedByMemory: process ids are the whole host's, so a machine gets a share of
// them by its memory; and the platform some that user code can't take.
func TestProcessesAreBoundedByMemory(t *testing.T) {
	t.Parallel()
	sleep := []string{"sleep", fmt.Sprint(1000000 + os.Getpid())}
	b := bindOf(newDisk(t), 1, fleet.Service{Name: "sleeper", Cmd: sleep})
	b.Config.Resources = fleet.Resources{CPUMillis: 1000, MemoryMiB: 2048}
	v := startVM(t)
	if err := v.SetLimits(t.Context(), b.Config.Resources); err != nil {
		t.Fatal(err)
	}
	v.bind(b)
	v.await("healthy", inState(guestapi.StateHealthy))
	pid := onHost(t, sleep...)
	if got := mostProcesses(t, pid, "."); got != "8192" {
		t.Errorf("a machine of 2 GiB may have %s processes", got)
	}
	if got, want := mostProcesses(t, pid, "../.."),
		fmt.Sprint(8192+guestapi.PlatformProcesses); got != want {
		t.Errorf("its VM may have %s processes, want %s", got, want)
	}
	v.release(b)
}

// TestNeighboursArePinned: the table of neighbours is the whole host's, and a machine can fill it.
// On the way between a worker and a machine each hop has a place in it all the same.
func TestNeighboursArePinned(t *testing.T) {
	t.Parallel()
	b := bindOf(newDisk(t), 1)
	v := startVM(t)
	v.bind(b)
	v.await("healthy", inState(guestapi.StateHealthy))
	if got := v.sh("ip -6 neigh show dev eth0"); !strings.HasPrefix(got, "fe80::1 ") ||
		!strings.Contains(got, "PERMANENT") {
		t.Errorf("the machine's neighbours: %q", got)
	}
	link, err := netlink.LinkByName(v.HostLink())
	if err != nil {
		t.Fatal(err)
	}
	all, err := netlink.NeighList(link.Attrs().Index, netlink.FAMILY_V6)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(all, func(n netlink.Neigh) bool {
		return n.IP.String() == guestapi.GuestLinkIP && n.State == netlink.NUD_PERMANENT
	}) {
		t.Errorf("the VM's host has the neighbours %v", all)
	}
	v.release(b)
}
