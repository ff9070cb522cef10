//go:build qemu

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/test/fleettest"
)

// qemuPatience is for a move to a VM whose kernel boots without KVM, on a busy host.
const qemuPatience = 3 * time.Minute

// TestMoveBetweenRuntimes drains a machine from a sandbox worker to a qemu worker, and back, on the same disk, under a
// writer that fsyncs numbered records (invariants 2, 3, 9). Its disk is checked by e2fsck in between and afterwards.
func TestMoveBetweenRuntimes(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 2, Runtime: "mixed"})
	checkRuntimes(t, f, "sandbox", "qemu")
	m := f.Create("ledger", "green", "w1", fleettest.LedgerConfig())
	acked := fleettest.WatchAcked(t, f, m.ID)
	kernels := map[string]string{"w1": kernelOf(f, m)}
	for _, hop := range []struct{ from, to string }{{"w1", "w2"}, {"w2", "w1"}} {
		after := drainOne(t, f, m, hop.from, hop.to)
		kernels[hop.to] = kernelOf(f, after)
		acked.MustBeIn(f, m.ID)
		stopAndCheck(t, f, after)
		if _, err := f.StartMachine(t.Context(), m.ID); err != nil {
			t.Fatal(err)
		}
		f.WaitHealthy(m.ID, qemuPatience)
		if _, err := f.Uncordon(t.Context(), hop.from); err != nil {
			t.Fatal(err)
		}
	}
	if kernels["w1"] == kernels["w2"] {
		t.Errorf("the qemu worker's machine runs on the host's kernel, %s", kernels["w1"])
	}
	t.Logf("%d records acknowledged and found; kernels %v", acked.Last(), kernels)
}

// TestDrainBetweenQemuWorkers is the main job, once, with a kernel in every VM.
func TestDrainBetweenQemuWorkers(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 2, Runtime: "qemu"})
	checkRuntimes(t, f, "qemu", "qemu")
	m := f.Create("ledger", "green", "w1", fleettest.LedgerConfig())
	acked := fleettest.WatchAcked(t, f, m.ID)
	after := drainOne(t, f, m, "w1", "w2")
	acked.MustBeIn(f, after.ID)
	if acked.Last() == 0 {
		t.Error("the writer never got to write: this run proves nothing")
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

func kernelOf(f *fleettest.Fleet, m api.Machine) string {
	return strings.TrimSpace(f.Run(m.ID, "/bin/uname", "-r"))
}

// drainOne drains a worker of its one machine, and checks that it is the same one on another.
func drainOne(t *testing.T, f *fleettest.Fleet, m api.Machine, from, to string) api.Machine {
	t.Helper()
	before, err := f.Machine(t.Context(), m.ID)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	d, err := f.StartDrain(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	d = f.WaitDrain(d.ID, qemuPatience)
	if d.State != "drained" || len(d.Moves) != 1 || d.Moves[0].DiskBytesCopied != 0 {
		t.Fatalf("drain of %s ended as %+v", from, d)
	}
	after := f.WaitHealthy(m.ID, qemuPatience)
	checkSameMachine(t, before, after, to)
	t.Logf("%s → %s: drained in %v, pause %.0f ms", from, to, time.Since(began).Round(time.Millisecond), d.Moves[0].PauseMS)
	return after
}

func stopAndCheck(t *testing.T, f *fleettest.Fleet, m api.Machine) {
	t.Helper()
	if _, err := f.StopMachine(t.Context(), m.ID); err != nil {
		t.Fatal(err)
	}
	f.Eventually(qemuPatience, func() error {
		now, err := f.Machine(t.Context(), m.ID)
		if err == nil && now.State != "stopped" {
			err = fmt.Errorf("machine is %s: %s", now.State, now.Reason)
		}
		return err
	})
	f.FsckClosed(m)
}
