package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/test/fleettest"
)

// qemuPatience is for a move to a VM whose kernel boots without KVM, on a busy host.
const qemuPatience = 5 * time.Minute

// TestQemuMachineMoves is the shortest life that a machine can have in a VM with a kernel of its
// own: it is made there, it writes, it moves to a worker of the other runtime, and it reads. The
// long ones, back again and between two workers of this runtime, have the tag qemu. Its disk is
// larger than its image, and so is its file system: a VM with a kernel of its own may always grow
// it, and it stays so.
func TestQemuMachineMoves(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 2, Runtime: "mixed"})
	checkRuntimes(t, f, "sandbox", "qemu")
	cfg := idle()
	cfg.CPUs, cfg.DiskGiB = 1, largeGiB
	m := f.Create("one", "green", "w2", cfg)
	checkGrown(t, f, m)
	ownKernel := kernelOf(f, m)
	checkFrontEnd(t, f, m, "nbd", "/dev/nbd")
	sum := f.Run(m.ID, "sh", "-c",
		"head -c 1000000 /dev/urandom > /data/random && sync && sha256sum /data/random")
	if _, err := f.MigrateMachine(t.Context(), m.ID, "w1"); err != nil {
		t.Fatal(err)
	}
	f.Eventually(qemuPatience, func() error {
		now, err := f.Machine(t.Context(), m.ID)
		if err == nil && (now.Worker != "w1" || now.Operation != "") {
			err = fmt.Errorf("it is on %s, busy with %q", now.Worker, now.Operation)
		}
		return err
	})
	after := f.WaitHealthy(m.ID, qemuPatience)
	checkSameMachine(t, m, after, "w1")
	checkFrontEnd(t, f, after, "fuse", "/dev/loop")
	if got := f.Run(m.ID, "sha256sum", "/data/random"); got != sum {
		t.Errorf("written %s, read %s", sum, got)
	}
	checkGrown(t, f, after)
	if kernel := kernelOf(f, after); kernel == ownKernel {
		t.Errorf("the qemu worker's machine ran on the host's kernel, %s", kernel)
	}
}

// largeGiB is more than any image of the tests has.
const largeGiB = 8

// checkGrown compares a machine's file system with its disk.
func checkGrown(t *testing.T, f *fleettest.Fleet, m api.Machine) {
	t.Helper()
	out := f.Run(m.ID, "sh", "-c", "df -m / | tail -n 1")
	fields := strings.Fields(out)
	if len(fields) < 2 {
		t.Fatalf("df says %q", out)
	}
	mib, err := strconv.Atoi(fields[1])
	if now, mErr := f.Machine(t.Context(), m.ID); err != nil || mErr != nil || mib < largeGiB*900 ||
		now.Disk.Ungrown != "" {
		t.Errorf("the file system of %s has %d MiB of %d GiB (%v), and its report says %q (%v)",
			m.Name, mib, largeGiB, err, now.Disk.Ungrown, mErr)
	}
}

func checkRuntimes(t *testing.T, f *fleettest.Fleet, want ...string) {
	t.Helper()
	for i, name := range []string{"w1", "w2"} {
		w, err := f.Worker(t.Context(), name)
		if err != nil || w.Runtime != want[i] {
			t.Fatalf("%s has runtime %q, %v", name, w.Runtime, err)
		}
	}
}

// checkFrontEnd compares how a machine's kernel gets its disk: as its platform says, and as the
// kernel shows what / is on.
func checkFrontEnd(t *testing.T, f *fleettest.Fleet, m api.Machine, kind, device string) {
	t.Helper()
	// the report of a machine that has just started may not be there yet
	f.Eventually(qemuPatience, func() error {
		now, err := f.Machine(t.Context(), m.ID)
		if err == nil && now.Disk.FrontEnd != kind {
			err = fmt.Errorf("the disk of %s on %s is shown by %q, want %q", now.Name, now.Worker,
				now.Disk.FrontEnd, kind)
		}
		return err
	})
	mounts := f.Run(m.ID, "cat", "/proc/self/mounts")
	root, _, _ := strings.Cut(mounts, " / ")
	if root = root[strings.LastIndexByte(root, '\n')+1:]; !strings.HasPrefix(root, device) {
		t.Errorf("the disk of %s is %q, want %s…", m.Name, root, device)
	}
}

func kernelOf(f *fleettest.Fleet, m api.Machine) string {
	return strings.TrimSpace(f.Run(m.ID, "/bin/uname", "-r"))
}
