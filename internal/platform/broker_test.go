package platform_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
)

// TestBrokerKilled: without its broker a VM could neither mount nor give back its disk. So it ends,
// as by the end of any part of its platform, leaves nothing, and what was acknowledged is there for
// the next one.
func TestBrokerKilled(t *testing.T) {
	id := newDisk(t)
	v := startVM(t)
	v.bind(bindOf(id, 1, loop("a")))
	v.await("healthy", inState(guestapi.StateHealthy))
	v.sh("echo acknowledged > /data/file; sync; dd if=/dev/zero of=/data/dirty bs=64k count=50 2>&-")
	if err := unix.Kill(v.broker(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-v.Done():
	case <-time.After(2 * time.Minute):
		t.Fatal("the VM doesn't end")
	}
	if err := v.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := bindOf(id, 1) // the same placement, once more, in a fresh VM
	w := startVM(t)
	w.bind(b)
	w.await("healthy", inState(guestapi.StateHealthy))
	if got := w.sh("cat /data/file"); got != "acknowledged\n" {
		t.Errorf("data: %q", got)
	}
	broker := w.broker()
	w.release(b)
	fsck(t, id)
	if err := w.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(broker), "stat")); err == nil &&
		!strings.Contains(string(stat), ") Z ") {
		t.Errorf("the broker outlives its VM: %s", stat)
	}
}

// TestBrokerOutlivesNobody: a VM whose init is killed ends with its broker, and its disk's loop
// device with that, although nobody has unmounted anything.
func TestBrokerOutlivesNobody(t *testing.T) {
	id := newDisk(t)
	v := startVM(t)
	v.bind(bindOf(id, 1, loop("a")))
	v.await("healthy", inState(guestapi.StateHealthy))
	backing := "/sluice-" + string(id) + "\n"
	if got := loopsOver(backing); got != 1 {
		t.Fatalf("the disk is on %d loop devices", got)
	}
	if err := unix.Kill(v.init(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(2 * time.Minute)
	for _, err := os.ReadFile(v.brokerFile()); ; {
		pids, _ := os.ReadFile(v.brokerFile())
		if err == nil && len(pids) == 0 && loopsOver(backing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left: broker %q, %d loop devices, %v", pids, loopsOver(backing), err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func loopsOver(backing string) int {
	n := 0
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		if b, _ := os.ReadFile(f); string(b) == backing {
			n++
		}
	}
	return n
}

func (v *testVM) brokerFile() string {
	layout, err := onhost.HostLayout()
	if err != nil {
		v.t.Fatal(err)
	}
	c := onhost.Cgroups{Layout: layout, Parent: "sluice-test/" + filepath.Base(shared.dir),
		ID: string(v.ID())}
	return filepath.Join(c.Beside(), "cgroup.procs")
}

// broker returns the process beside the VM.
func (v *testVM) broker() int {
	v.t.Helper()
	b, err := os.ReadFile(v.brokerFile())
	if err != nil {
		v.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		v.t.Fatalf("brokers of VM %s: %q", v.ID(), b)
	}
	return pid
}

// init returns the VM's first process.
func (v *testVM) init() int {
	v.t.Helper()
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(v.processes("blockd")[0]) + "/stat")
	_, rest, ok := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if err != nil || !ok || len(fields) < 2 {
		v.t.Fatalf("stat of blockd: %q, %v", stat, err)
	}
	pid, err := strconv.Atoi(fields[1])
	if err != nil {
		v.t.Fatal(err)
	}
	return pid
}
