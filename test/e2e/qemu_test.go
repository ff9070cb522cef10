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

// changing are the files of a ledger's machine that are not the same after a move: its records, of
// which there are more, and its addresses.
var changing = []string{"/data/ledger", "/etc/hosts"}

// TestMoveBetweenRuntimes drains a machine from a sandbox worker to a qemu worker, and back, on the
// same disk, under a writer that fsyncs numbered records (invariants 2, 3, 9). All its files are
// the same after each move, as the machine sees them and as they are on the closed disk, also those
// that were made under the other runtime.
func TestMoveBetweenRuntimes(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 2, Runtime: "mixed"})
	checkRuntimes(t, f, "sandbox", "qemu")
	m := f.Create("ledger", "green", "w1", slowLedger(1))
	acked := fleettest.WatchAcked(t, f, m.ID)
	kernels := map[string]string{"w1": kernelOf(f, m)}
	for _, hop := range []struct{ from, to string }{{"w1", "w2"}, {"w2", "w1"}} {
		f.Run(m.ID, "probe", "plant", "/srv/made-on-"+hop.from, "1")
		before := treeOf(f, m)
		after := drainWorker(t, f, hop.from, hop.to, m)[0]
		kernels[hop.to] = kernelOf(f, after)
		moved := treeOf(f, after)
		sameLines(t, "moved to "+hop.to, before, moved)
		acked.MustBeIn(f, m.ID)
		stop(t, f, after)
		onDisk := inBoth(f.TreeOnClosed(after, changing...), moved)
		sameLines(t, "closed on "+hop.to, moved, onDisk)
		t.Logf(
			"%d files are the same after %s → %s, in the machine and on its closed disk, which e2fsck finds clean", strings.Count(moved, "\n"), hop.from, hop.to)
		start(t, f, after)
		sameLines(t, "started again on "+hop.to, moved, treeOf(f, after))
		if _, err := f.Uncordon(t.Context(), hop.from); err != nil {
			t.Fatal(err)
		}
	}
	if kernels["w1"] == kernels["w2"] {
		t.Errorf("the qemu worker's machine runs on the host's kernel, %s", kernels["w1"])
	}
	t.Logf("%d records acknowledged and found; kernels %v", acked.Last(), kernels)
}

// TestDrainBetweenQemuWorkers is the main job, with a kernel in every VM: three machines in two
// networks, each under a writer that fsyncs numbered records throughout (invariants 2, 3, 5, 8, 9).
func TestDrainBetweenQemuWorkers(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 1, Runtime: "qemu"})
	checkRuntimes(t, f, "qemu", "qemu")
	var machines []api.Machine
	var acked []*fleettest.Acked
	for i, network := range []string{"green", "green", "blue"} {
		m := f.Create(fmt.Sprintf("ledger%d", i), network, "w1", slowLedger(0.5))
		machines = append(machines, m)
		acked = append(acked, fleettest.WatchAcked(t, f, m.ID))
	}
	freshKernels(t, f, machines)
	before := make([]uint64, len(machines))
	for i, m := range machines {
		before[i] = atLeast(f, acked[i], 1)
		t.Logf("%s is on kernel %s", m.Name, kernelOf(f, m))
	}
	for i, m := range drainWorker(t, f, "w1", "w2", machines...) {
		acked[i].MustBeIn(f, m.ID)
		stop(t, f, m)
		f.FsckClosed(m)
		start(t, f, m)
		acked[i].MustBeIn(f, m.ID)
		t.Logf(
			"%s: %d records were acknowledged before the drain, %d in all, and all are there; e2fsck finds its disk clean",
			m.Name, before[i], atLeast(f, acked[i], before[i]+1))
	}
}

// freshKernels finds that no two kernels have the same random numbers, though they were resumed
// from one saved VM in which the platform had run.
func freshKernels(t *testing.T, f *fleettest.Fleet, machines []api.Machine) {
	t.Helper()
	said := map[string]string{}
	for _, file := range []string{"boot_id", "uuid"} {
		for _, m := range machines {
			id := f.Run(m.ID, "cat", "/proc/sys/kernel/random/"+file)
			if other := said[id]; other != "" {
				t.Errorf("%s and %s have the same %s, %s", other, m.Name, file, id)
			}
			said[id] = m.Name
		}
	}
}

// slowLedger leaves time between its records for others: without KVM a processor does a tenth of
// its work.
func slowLedger(cpus float64) api.MachineConfig {
	cfg := fleettest.LedgerConfig()
	cfg.CPUs = cpus
	cfg.Services[0].Cmd = append(cfg.Services[0].Cmd, "20ms")
	return cfg
}

// atLeast waits until so many records are acknowledged: without them a test proves nothing.
func atLeast(f *fleettest.Fleet, a *fleettest.Acked, n uint64) uint64 {
	f.Eventually(qemuPatience, func() error {
		if a.Last() < n {
			return fmt.Errorf("%d records are acknowledged, and %d are waited for", a.Last(), n)
		}
		return nil
	})
	return a.Last()
}

// treeOf tells the machine's files as it sees them.
func treeOf(f *fleettest.Fleet, m api.Machine) string {
	return f.Run(m.ID, append([]string{"probe", "tree", "/"}, changing...)...)
}

// drainWorker drains a worker of its machines, which are told, and checks that they are the same
// ones on another.
func drainWorker(t *testing.T, f *fleettest.Fleet, from, to string,
	machines ...api.Machine) []api.Machine {
	t.Helper()
	before := make([]api.Machine, len(machines))
	for i, m := range machines {
		before[i] = f.WaitHealthy(m.ID, qemuPatience)
	}
	began := time.Now()
	d, err := f.StartDrain(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	d = f.WaitDrain(d.ID, qemuPatience)
	if d.State != "drained" {
		t.Fatalf("drain of %s ended as %+v", from, d)
	}
	t.Logf("%s → %s: drained in %v", from, to, time.Since(began).Round(time.Millisecond))
	done := 0
	for _, move := range d.Moves {
		if move.DiskBytesCopied != 0 {
			t.Errorf("%d bytes of %s's disk were copied", move.DiskBytesCopied, move.MachineName)
		}
		// on a busy host, for a target whose VM took too long to boot; another move follows
		if move.Step != "done" {
			t.Logf("  %s: %s: %s", move.MachineName, move.Step, move.Error)
			continue
		}
		done++
		t.Logf("  %s: pause %.0f ms", move.MachineName, move.PauseMS)
	}
	if done != len(machines) {
		t.Fatalf("drain of %s ended as %+v", from, d)
	}
	after := make([]api.Machine, len(machines))
	for i, m := range machines {
		after[i] = f.WaitHealthy(m.ID, qemuPatience)
		checkSameMachine(t, before[i], after[i], to)
	}
	return after
}

func stop(t *testing.T, f *fleettest.Fleet, m api.Machine) {
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
}

func start(t *testing.T, f *fleettest.Fleet, m api.Machine) {
	t.Helper()
	if _, err := f.StartMachine(t.Context(), m.ID); err != nil {
		t.Fatal(err)
	}
	f.WaitHealthy(m.ID, qemuPatience)
}

// sameLines fails the test if two texts differ, with the first lines that only one of them has.
func sameLines(t *testing.T, what, before, after string) {
	t.Helper()
	if before == after {
		return
	}
	for name, pair := range map[string][2]string{"gone": {before, after}, "new": {after, before}} {
		other, shown := lineSet(pair[1]), 0
		for line := range strings.Lines(pair[0]) {
			if !other[line] && shown < 10 {
				shown++
				t.Errorf("%s: %s: %s", what, name, strings.TrimSpace(line))
			}
		}
	}
	t.Fatalf("%s: the file trees differ", what)
}

func lineSet(text string) map[string]bool {
	set := map[string]bool{}
	for line := range strings.Lines(text) {
		set[line] = true
	}
	return set
}

// inBoth returns the lines of text, in its order, that other has too. A closed disk also shows what
// a running machine hides: the directories that others are mounted on.
func inBoth(text, other string) string {
	var both strings.Builder
	known := lineSet(other)
	for line := range strings.Lines(text) {
		if known[line] {
			both.WriteString(line)
		}
	}
	return both.String()
}
