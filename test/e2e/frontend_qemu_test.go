//go:build qemu

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/test/fleettest"
)

// filler keeps writing to the disk what nobody waits for, besides an fsync now and then.
var filler = api.Service{Name: "filler", Cmd: []string{"sh", "-c",
	"i=0; while true; do dd if=/dev/urandom of=/data/f$((i%8)) bs=64k count=16 conv=fsync 2>/dev/null; i=$((i+1)); done"}}

// TestQemuEndsWithItsBlockd kills the process that serves a machine's disk, within the VM, while
// others write and fsync. With a disk by NBD they wait for it in the kernel, and can't be killed:
// so their VM ends, at once and as a whole, and the machine goes on in another one with all that
// was acknowledged (invariants 2, 3).
func TestQemuEndsWithItsBlockd(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 1, Runtime: "qemu", FrontEnd: "nbd",
		Release: sabotagedRelease(t)})
	cfg := slowLedger(1)
	cfg.Services = append(cfg.Services, filler)
	m := f.Create("ledger", "green", "w1", cfg)
	acked := fleettest.WatchAcked(t, f, m.ID)
	for range 2 {
		checkFrontEnd(t, f, m, "nbd", "/dev/nbd")
		atLeast(f, acked, acked.Last()+5)
		vm := "vm-" + vmOf(t, f, m).ID
		f.Run(m.ID, "sh", "-c",
			"echo "+vm+" > /data/kill-blockd.new && mv /data/kill-blockd.new /data/kill-blockd")
		killed := time.Now()
		f.Eventually(qemuPatience, func() error { return notRunning(vm) })
		t.Logf("%s ended %v after its blockd was to be killed", vm,
			time.Since(killed).Round(time.Millisecond))
		m = awaitNextInstance(t, f, m)
		acked.MustBeIn(f, m.ID)
	}
	stop(t, f, m)
	f.FsckClosed(m)
	t.Logf("%d records were acknowledged, and all are there; e2fsck finds the disk clean",
		acked.Last())
}

// sabotagedRelease is this tree's, with test/guest/saboteur in it.
func sabotagedRelease(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), strings.Repeat("5ab0", 16))
	runc := filepath.Join(dir, "usr/sbin/runc")
	for _, cmd := range [][]string{
		{"cp", "-r", fleettest.Release(t), dir}, {"mv", runc, runc + ".real"},
		{"go", "build", "-trimpath", "-o", runc,
			"github.com/sluice-platform/sluice/test/guest/saboteur"},
	} {
		c := exec.CommandContext(t.Context(), cmd[0], cmd[1:]...)
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, out)
		}
	}
	return dir
}

func vmOf(t *testing.T, f *fleettest.Fleet, m api.Machine) fleettest.VM {
	t.Helper()
	vms, err := f.VMs(m.Worker)
	if err != nil {
		t.Fatal(err)
	}
	for _, vm := range vms {
		if vm.Machine == m.ID {
			return vm
		}
	}
	t.Fatalf("%s has no VM of %s: %+v", m.Worker, m.Name, vms)
	return fleettest.VM{}
}

// notRunning is an error as long as a process has this argument.
func notRunning(argument string) error {
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, file := range all {
		line, err := os.ReadFile(file)
		if err == nil && slices.Contains(strings.Split(string(line), "\x00"), argument) {
			return fmt.Errorf("%s runs as process %s", argument, filepath.Base(filepath.Dir(file)))
		}
	}
	return nil
}

// TestQemuPausesWithItsStore fills the store under a machine of which the kernel has the disk by
// NBD, and leaves it so for longer than the kernel's own patience with a request, half a minute:
// the machine is paused, no request fails, and all goes on when there is space (invariant 2).
func TestQemuPausesWithItsStore(t *testing.T) {
	store, grow := smallStore(t)
	f := fleettest.Start(t, fleettest.Options{Workers: 1, Runtime: "qemu", FrontEnd: "nbd",
		Store: store})
	cfg := slowLedger(1)
	cfg.Services = append(cfg.Services, filler)
	m := f.Create("ledger", "green", "w1", cfg)
	checkFrontEnd(t, f, m, "nbd", "/dev/nbd")
	acked := fleettest.WatchAcked(t, f, m.ID)
	paused := func() error {
		now, err := f.Machine(t.Context(), m.ID)
		if s := now.DiskStall; err == nil && (s == nil || !s.Paused) {
			err = fmt.Errorf("the machine isn't paused: %+v", s)
		}
		return err
	}
	f.Eventually(qemuPatience, paused)
	before := acked.Last()
	time.Sleep(40 * time.Second)
	if err := paused(); err != nil {
		t.Fatal(err)
	}
	grow()
	atLeast(f, acked, before+5)
	after := f.WaitHealthy(m.ID, qemuPatience)
	if after.InstanceID != m.InstanceID {
		t.Errorf("instance %s became %s: it didn't go on where it was", m.InstanceID,
			after.InstanceID)
	}
	acked.MustBeIn(f, m.ID)
	stop(t, f, m)
	f.FsckClosed(m)
	t.Logf("paused at record %d, went on to %d; e2fsck finds the disk clean", before, acked.Last())
}

// TestQemuByFUSE is a machine of which the kernel could have the disk by NBD, and is told not to.
func TestQemuByFUSE(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 2, Runtime: "qemu", FrontEnd: "fuse"})
	m := f.Create("ledger", "green", "w1", slowLedger(1))
	checkFrontEnd(t, f, m, "fuse", "/dev/loop")
	acked := fleettest.WatchAcked(t, f, m.ID)
	atLeast(f, acked, 5)
	m = drainWorker(t, f, "w1", "w2", m)[0]
	checkFrontEnd(t, f, m, "fuse", "/dev/loop")
	acked.MustBeIn(f, m.ID)
	stop(t, f, m)
	f.FsckClosed(m)
}
