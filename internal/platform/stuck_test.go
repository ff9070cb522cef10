package platform_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/memcg"
)

// TestStuckBlockdEndsItsVM: a blockd that does nothing any more is named as what it is, its VM
// ends, and what was acknowledged is there for the next one.
func TestStuckBlockdEndsItsVM(t *testing.T) {
	id := newDisk(t)
	v := startVM(t)
	v.bind(bindOf(id, 1, loop("a")))
	v.await("healthy", inState(guestapi.StateHealthy))
	v.sh(
		"echo acknowledged > /data/file; sync; dd if=/dev/zero of=/data/dirty bs=64k count=200 2>/dev/null")
	if err := unix.Kill(v.processes("blockd")[0], unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	h := v.await("failed", inState(guestapi.StateFailed))
	if h.ErrorKind != string(errs.Unavailable) || !strings.Contains(h.Error, "is stuck") ||
		h.Remedy == "" {
		t.Errorf("health %+v", h)
	}
	select {
	case <-v.Done():
	case <-time.After(time.Minute):
		t.Fatal("the VM doesn't end")
	}
	b := bindOf(id, 1)
	w := startVM(t)
	w.bind(b)
	w.await("healthy", inState(guestapi.StateHealthy))
	if got := w.sh("cat /data/file"); got != "acknowledged\n" {
		t.Errorf("data: %q", got)
	}
	w.release(b)
	fsck(t, id)
}

// TestStuckPlatformdIsStartedAgain: a platformd that does nothing any more is killed and started
// again, and says so. What runs in the machine goes on, and can be asked for again.
func TestStuckPlatformdIsStartedAgain(t *testing.T) {
	t.Parallel()
	id := newDisk(t)
	b := bindOf(id, 1, loop("a"))
	v := startVM(t)
	v.bind(b)
	before := v.awaitService("a", "ready",
		func(s fleet.ServiceReport) bool { return s.State == "ready" })
	if h := v.health(); h.Platform != nil {
		t.Fatalf("nothing has happened yet: %+v", h.Platform)
	}
	stopped := v.processes("platformd")[0]
	if err := unix.Kill(stopped, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// A platformd that init has not heard yet is let be for minutes: on a busy host this one may be
	// stopped before that.
	h := v.awaitFor(10*time.Minute, "answers again",
		func(h guestapi.Health) bool { return h.Platform != nil })
	if p := h.Platform; p.Count != 1 || !strings.Contains(p.Reason, "it has not answered for") ||
		!strings.Contains(p.Reason, "state T") || p.Last.IsZero() {
		t.Errorf("the VM says of its platform: %+v", p)
	}
	after := v.awaitService("a", "taken over",
		func(s fleet.ServiceReport) bool { return s.State == "ready" })
	if after.PID != before.PID || after.Restarts != 0 {
		t.Errorf("the service was %+v, is %+v", before, after)
	}
	if got := v.sh("echo works"); got != "works\n" {
		t.Errorf("exec says %q", got)
	}
	if now := v.processes("platformd")[0]; now == stopped {
		t.Errorf("process %d is the platform still", now)
	}
	v.release(b)
	fsck(t, id)
}

// TestPlatformdThatStaysStuckEndsItsVM: where starting platformd again is no cure, the machine gets
// another VM.
func TestPlatformdThatStaysStuckEndsItsVM(t *testing.T) {
	t.Parallel()
	v := startVM(t)
	seen := map[int]bool{}
	for deadline := time.Now().Add(10 * time.Minute); time.Now().Before(deadline); {
		select {
		case <-v.Done():
			if len(seen) < 4 {
				t.Errorf("%d platformds were all that was tried", len(seen))
			}
			return
		case <-time.After(5 * time.Millisecond):
		}
		for _, pid := range v.findProcesses("platformd") {
			if !seen[pid] && unix.Kill(pid, unix.SIGSTOP) == nil {
				seen[pid] = true
			}
		}
	}
	t.Fatalf("the VM is still there, after %d platformds", len(seen))
}

// TestBlockdOutOfMemory: a blockd that the kernel has killed for lack of memory is named as that,
// by who sees it end.
func TestBlockdOutOfMemory(t *testing.T) {
	t.Parallel()
	id := newDisk(t)
	v := startVM(t)
	v.bind(bindOf(id, 1))
	v.await("healthy", inState(guestapi.StateHealthy))
	blockd := v.processes("blockd")[0]
	// Of the platform it is the one to be killed, as soon as there is less memory than it needs.
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", blockd), []byte("1000"),
		0); err != nil {
		t.Fatal(err)
	}
	all, err := memcg.Of(blockd)
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(all, func(g memcg.Cgroup) bool {
		_,
			err := g.OOMKills()
		return err == nil
	})
	if at < 0 {
		t.Fatalf("no memory is counted in %+v", all)
	}
	hog := exec.Command("sh", "-c", `echo $$ > "$0" && exec tail /dev/zero`,
		filepath.Join(all[at].Dir, "cgroup.procs"))
	if err := hog.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = hog.Process.Kill()
		_ = hog.Wait()
	})
	h := v.await("failed", inState(guestapi.StateFailed))
	if h.ErrorKind != string(errs.Unavailable) || !strings.Contains(h.Error, "was killed") ||
		!strings.Contains(h.Error, "out of memory (it has 512 MiB, 416 of them for the disk)") ||
		h.Remedy == "" {
		t.Errorf("health %+v", h)
	}
}
