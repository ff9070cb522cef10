package platform_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
)

// TestMachineSeesItsOwn: what programs ask for the size and load of the machine they are on tells
// of theirs, from their first moment on; and goes on telling when the platform doesn't run.
func TestMachineSeesItsOwn(t *testing.T) {
	t.Parallel()
	first := fleet.Service{Name: "first", Cmd: []string{"sh", "-c",
		"head -n 1 /proc/meminfo > /data/first; exec sleep 100000"}}
	b := bindOf(newDisk(t), 1, first)
	b.Config.Resources = fleet.Resources{CPUMillis: 500, MemoryMiB: 96}
	v := startVM(t)
	v.bind(b)
	v.await("healthy", inState(guestapi.StateHealthy))
	const total = "MemTotal:          98304 kB\n"
	for what, want := range map[string]string{
		"cat /data/first":                      total,
		"head -n 1 /proc/meminfo":              total,
		"grep -c ^processor /proc/cpuinfo":     "1\n",
		"grep -c '^cpu[0-9]' /proc/stat":       "1\n",
		"cat /sys/devices/system/cpu/online":   "0\n",
		"wc -l < /proc/swaps":                  "1\n",
		"grep -c ^btime /proc/stat":            "1\n",
		"echo x > /proc/meminfo || echo no":    "no\n",
		"cat /proc/diskstats /proc/partitions": "",
	} {
		if got := v.exec(shell(what)).stdout; got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	// the ages of processes fit to it
	if got := v.sh("awk -v up=$(cut -d. -f1 /proc/uptime) " +
		"'{print ($22/100 <= up+1)}' /proc/self/stat"); got != "1\n" {
		t.Error("a process is older than the machine")
	}
	if kernel := v.sh("uname -r"); kernelFrom(kernel, 6, 3) { // see sandbox.ownUptime
		if got := v.sh("awk '{print ($1 < 900)}' /proc/uptime"); got != "1\n" {
			t.Errorf("on Linux %s it is up for %s", kernel, v.sh("cat /proc/uptime"))
		}
	}
	busyUntil(t, v, "its memory", "dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2>/dev/null",
		"awk '/^MemFree/ {print ($2 < 79000)}' /proc/meminfo")
	busyUntil(t, v, "its load", "setsid sh -c 'while :; do :; done' >/dev/null 2>&1 &",
		"awk '{print ($1 > 0.05)}' /proc/loadavg")
	busyUntil(t, v, "its processors' time", "true",
		"awk '$1 == \"cpu\" {print ($2 > 100)}' /proc/stat")

	// A platform that hangs, or is not there, harms no reader.
	platformd := v.processes("platformd")[0]
	if err := unix.Kill(platformd, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Kill(platformd, unix.SIGCONT) }()
	inside := fmt.Sprintf("/proc/%d/root/proc/meminfo", onHost(t, "sleep", "100000"))
	read, err := os.ReadFile(inside)
	if err != nil || !strings.HasPrefix(string(read), total) {
		t.Errorf("beside a platform that hangs: %q, %v", read, err)
	}
	_ = unix.Kill(platformd, unix.SIGCONT)
	v.release(b)
}

// busyUntil runs a script in the machine, and waits until another prints 1.
func busyUntil(t *testing.T, v *testVM, what, script, shows string) {
	t.Helper()
	v.sh(script)
	for deadline := time.Now().Add(awaitLimit); v.sh(shows) != "1\n"; time.Sleep(time.Second) {
		if time.Now().After(deadline) {
			t.Fatalf("%s is not shown: %s%s", what, v.sh("cat /proc/loadavg /proc/stat"),
				v.sh("cat /proc/meminfo"))
		}
	}
}

func kernelFrom(release string, major, minor int) bool {
	var a, b int
	_, err := fmt.Sscanf(release, "%d.%d", &a, &b)
	return err == nil && (a > major || a == major && b >= minor)
}
