package platform_test

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestStuckBlockdEndsItsVM: a blockd that does nothing any more is named as what it is, its VM ends, and what was acknowledged
// is there for the next one.
func TestStuckBlockdEndsItsVM(t *testing.T) {
	id := newDisk(t)
	v := startVM(t)
	v.bind(bindOf(id, 1, loop("a")))
	v.await("healthy", inState(guestapi.StateHealthy))
	v.sh("echo acknowledged > /data/file; sync; dd if=/dev/zero of=/data/dirty bs=64k count=200 2>/dev/null")
	if err := unix.Kill(v.processes("blockd")[0], unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	h := v.await("failed", inState(guestapi.StateFailed))
	if h.ErrorKind != string(errs.Unavailable) || !strings.Contains(h.Error, "is stuck") || h.Remedy == "" {
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
