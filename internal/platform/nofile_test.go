package platform_test

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
)

const showLimits = "echo $(ulimit -Sn) $(ulimit -Hn)"

// TestLimitOfOpenFiles: what the machine's config asks for is the limit of its services, their
// checks and what is run in it, soft and hard.
func TestLimitOfOpenFiles(t *testing.T) {
	t.Parallel()
	id := newDisk(t)
	limited := fleet.Service{Name: "limited",
		Cmd: []string{"sh", "-c", showLimits + " > /data/limits; while :; do sleep 1; done"},
		Check: &fleet.Check{Kind: fleet.CheckExec,
			Cmd: []string{"sh", "-c", showLimits + " > /data/checked"}}}
	b := bindOf(id, 1, limited)
	b.Config.NoFile = 100 // less than any worker gives
	v := startVM(t)
	v.bind(b)
	v.await("healthy", inState(guestapi.StateHealthy))
	const want = "100 100\n"
	for what, got := range map[string]string{
		"service": v.sh("cat /data/limits"), "check": v.sh("cat /data/checked"),
		"exec":           v.sh(showLimits),
		"exec by a user": v.exec(shell(showLimits, "user", "web")).stdout,
		"exec with a terminal": strings.ReplaceAll(
			v.exec(shell(showLimits, "tty", "1")).stdout, "\r", ""),
	} {
		if got != want {
			t.Errorf("limits of %s are %q, want %q", what, got, want)
		}
	}
	if r := v.exec(shell("echo not run", "dir", "/nowhere")); r.code != 126 || r.stdout != "" {
		t.Errorf("in a directory that isn't there: %+v", r)
	}
	v.release(b)
	fsck(t, id)
}

// TestMoreOpenFilesThanTheWorkerGives: where the worker may not raise limits, a machine that asks
// for more than it has fails, and says what to do; it doesn't run with less.
func TestMoreOpenFilesThanTheWorkerGives(t *testing.T) {
	t.Parallel()
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		t.Fatal(err)
	}
	b := bindOf(newDisk(t), 1)
	b.Config.NoFile = fleet.MaxNoFile
	v := startVM(t)
	v.bind(b)
	if mayGrow(t) || own.Max >= fleet.MaxNoFile { // the VM has the most that there is
		v.await("healthy", inState(guestapi.StateHealthy))
		if got, want := v.sh(showLimits), fmt.Sprintf("%d %[1]d\n", fleet.MaxNoFile); got != want {
			t.Errorf("limits are %q, want %q", got, want)
		}
		v.release(b)
		return
	}
	h := v.await("failed", inState(guestapi.StateFailed))
	if !strings.Contains(h.Error, fmt.Sprintf("at most %d", own.Max)) ||
		!strings.Contains(h.Remedy, "CAP_SYS_RESOURCE") {
		t.Errorf("error %q, remedy %q", h.Error, h.Remedy)
	}
}
