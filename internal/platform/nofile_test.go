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

// TestUserAndPrivileges: what the machine's config says of the user and of new privileges goes for
// services, their checks and what is run in it; who runs something in it may name another user.
func TestUserAndPrivileges(t *testing.T) {
	t.Parallel()
	const show = "echo $(id -u):$(id -g) $(grep NoNewPrivs /proc/self/status)"
	const want = "1000:1000 NoNewPrivs: 1\n"
	service := fleet.Service{Name: "web", Cmd: []string{"sh", "-c",
		show + " > /tmp/service; while :; do sleep 1; done"},
		Check: &fleet.Check{Kind: fleet.CheckExec, Cmd: []string{"sh", "-c",
			show + " > /tmp/checked"}}}
	b := bindOf(newDisk(t), 1)
	v := startVM(t)
	v.bind(b)
	v.await("healthy", inState(guestapi.StateHealthy))
	if got := v.sh(show); got != "0:0 NoNewPrivs: 0\n" {
		t.Errorf("where nothing is said: %q", got)
	}
	v.sh("chmod 1777 /tmp")
	v.release(b)

	b.Generation++
	b.Config.Services = []fleet.Service{service}
	b.Config.User, b.Config.NoNewPrivileges = "web", true
	limited := startVM(t)
	limited.bind(b)
	limited.await("healthy", inState(guestapi.StateHealthy))
	for what, got := range map[string]string{"service": limited.sh("cat /tmp/service"),
		"check": limited.sh("cat /tmp/checked"), "exec": limited.sh(show)} {
		if got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	if got := limited.exec(shell(show, "user", "root")).stdout; got != "0:0 NoNewPrivs: 1\n" {
		t.Errorf("exec by root: %q", got)
	}
	limited.release(b)
}
