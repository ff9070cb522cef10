package platform_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
)

// writerService keeps dirtying the disk without ever waiting for it.
func writerService() fleet.Service {
	return fleet.Service{Name: "writer", Cmd: []string{"sh", "-c",
		"while :; do dd if=/dev/zero of=/data/dirty bs=64k count=16 2>/dev/null; echo wrote; sleep 0.05; done"}}
}

// syncWithin is far beyond what a sync takes, even on a busy host, unless it waits for another
// machine's disk.
const syncWithin = time.Minute

// beside runs a script while another machine's store has stalled. If the script waits for that, the
// store is let go before the test fails: nothing else ends such a wait.
func (v *testVM) beside(stalled *testVM, script string) string {
	v.t.Helper()
	conn := v.dialExec(shell(script))
	defer conn.CloseNow()
	var stdout string
	ended := make(chan error, 1)
	begun := time.Now()
	go func() {
		r, err := drain(v.t.Context(), conn)
		stdout = r.stdout
		ended <- err
	}()
	select {
	case err := <-ended:
		if err != nil {
			v.t.Fatalf("%s: %v", script, err)
		}
		v.t.Logf("%s: %v", script, time.Since(begun))
	case <-time.After(syncWithin):
		stalled.cut.Store(false)
		v.t.Fatalf("%s: not within %v; once the other machine's store is back: %v", script,
			syncWithin, <-ended)
	}
	return stdout
}

// TestSyncIsOfOneMachine: a sync in a machine makes its own disk durable, and doesn't wait for
// another's, whose store has stalled; however many sync at once, and over the ends of platformd.
func TestSyncIsOfOneMachine(t *testing.T) {
	t.Parallel()
	id := newDisk(t)
	v := startVM(t)
	v.bind(bindOf(id, 1))
	v.await("healthy", inState(guestapi.StateHealthy))

	stalled := startVM(t)
	s := bindOf(newDisk(t), 1, recorderService(), writerService())
	stalled.bind(s)
	stalled.await("healthy", inState(guestapi.StateHealthy))
	stalled.goesOn()
	stalled.cut.Store(true)
	defer func() {
		stalled.cut.Store(false)
		stalled.release(s)
	}()
	stalled.await("stalled, with something that waits",
		func(h guestapi.Health) bool { return h.Stall != nil && !h.Stall.HeldSince.IsZero() })

	if got := v.beside(stalled, "echo one > /data/one; sync; echo $?"); got != "0\n" {
		t.Errorf("sync: %q", got)
	}
	stalled.await("paused", func(h guestapi.Health) bool {
		return h.Stall != nil &&
			h.Stall.Paused
	})
	if got := v.beside(stalled,
		"echo two > /data/two; for i in $(seq 100); do sync & done; wait; echo $?"); got != "0\n" {
		t.Errorf("100 syncs: %q", got)
	}
	for range 2 {
		v.kill("platformd")
		v.await("platformd is back", func(guestapi.Health) bool { return true })
	}
	if got := v.beside(stalled, "echo three > /data/three; sync; echo $?"); got != "0\n" {
		t.Errorf("sync after platformd's end: %q", got)
	}
	if err := v.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := startVM(t)
	b := bindOf(id, 2)
	w.bind(b)
	w.await("healthy", inState(guestapi.StateHealthy))
	if got := w.sh("cat /data/one /data/two /data/three"); got != "one\ntwo\nthree\n" {
		t.Errorf("what was synced before the VM was killed: %q", got)
	}
	w.release(b)
}

// TestSyncIsOfAllThatAMachineHas: its root is the only file system of a machine that has anything
// to write out.
func TestSyncIsOfAllThatAMachineHas(t *testing.T) {
	v := startVM(t)
	b := bindOf(newDisk(t), 1)
	v.bind(b)
	v.await("healthy", inState(guestapi.StateHealthy))
	kernels := map[string]bool{"proc": true, "sysfs": true, "tmpfs": true, "devpts": true,
		"mqueue": true, "devtmpfs": true}
	for line := range strings.Lines(v.sh("cat /proc/mounts")) {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[1] != "/" && !kernels[fields[2]] {
			t.Errorf("mounted in the machine: %s", line)
		}
	}
	v.release(b)
}

// TestSyncWaitsForItsOwnDisk: while a machine's own store has stalled, a sync in it waits, over the
// machine's pause too, and then tells the truth. A VM that is killed with one under way is gone.
func TestSyncWaitsForItsOwnDisk(t *testing.T) {
	t.Parallel()
	v := startVM(t)
	v.bind(bindOf(newDisk(t), 1))
	v.await("healthy", inState(guestapi.StateHealthy))
	v.cut.Store(true)
	conn := v.dialExec(shell("echo data > /data/file; sync; echo synced"))
	defer conn.CloseNow()
	ended := make(chan result, 1)
	go func() {
		r, _ := drain(v.t.Context(), conn)
		ended <- r
	}()
	v.await("paused", func(h guestapi.Health) bool { return h.Stall != nil && h.Stall.Paused })
	select {
	case r := <-ended:
		t.Errorf("nothing can be durable yet: %+v", r)
	default:
	}
	v.cut.Store(false)
	if r := <-ended; r.stdout != "synced\n" {
		t.Errorf("once the store is back: %+v", r)
	}
	v.await("not stalled", func(h guestapi.Health) bool { return h.Stall == nil })

	v.cut.Store(true)
	under := v.dialExec(shell("echo more > /data/file; sync; echo synced"))
	defer under.CloseNow()
	v.await("stalled, with a sync that waits",
		func(h guestapi.Health) bool { return h.Stall != nil && !h.Stall.HeldSince.IsZero() })
	if err := v.Kill(t.Context()); err != nil {
		t.Error(err)
	}
}
