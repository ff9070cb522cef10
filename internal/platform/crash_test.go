package platform_test

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coder/websocket"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestKilledVMIsGone kills VMs with a dirty file system mounted: nothing may be left waiting for a
// disk whose server is dead, and what was acknowledged is there for the next one.
func TestKilledVMIsGone(t *testing.T) {
	id := newDisk(t)
	for gen := range 4 {
		b := bindOf(id, fleet.Generation(gen+1))
		v := startVM(t)
		v.bind(b)
		v.await("healthy", inState(guestapi.StateHealthy))
		if gen > 0 {
			if got := v.sh("cat /data/kept"); got != "kept\n" {
				t.Fatalf("generation %d: %q", gen, got)
			}
		}
		v.sh(
			"echo kept > /data/kept; sync; dd if=/dev/zero of=/data/dirty bs=64k count=200 2>/dev/null")
		began := time.Now()
		if err := v.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("killed in %v", took)
		}
	}
}

// kill ends one process of the VM, by the role it has.
func (v *testVM) kill(role string) {
	v.t.Helper()
	for _, pid := range v.processes(role) {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			v.t.Fatal(err)
		}
	}
}

// processes returns the VM's process of sluice-init with a role, of which there must be one.
func (v *testVM) processes(role string) []int {
	v.t.Helper()
	found := v.findProcesses(role)
	if len(found) != 1 {
		v.t.Fatalf("%d processes of %s in VM %s", len(found), role, v.ID())
	}
	return found
}

// findProcesses returns the VM's processes of sluice-init with a role.
func (v *testVM) findProcesses(role string) []int {
	v.t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		v.t.Fatal(err)
	}
	var found []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cmd, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		group, _ := os.ReadFile("/proc/" + e.Name() + "/cgroup")
		if string(cmd) == "/usr/bin/sluice-init\x00"+role+"\x00" && startedByInit(e.Name()) &&
			strings.Contains(string(group), string(v.ID())) {
			found = append(found, pid)
		}
	}
	return found
}

// startedByInit tells a process from a copy of it that is about to run something else.
func startedByInit(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	_, rest, ok := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if err != nil || !ok || len(fields) < 2 {
		return false
	}
	parent, _ := os.ReadFile("/proc/" + fields[1] + "/cmdline")
	return string(parent) == "/usr/bin/sluice-init\x00init\x00"
}

// TestPlatformdKilled kills platformd at many moments: what runs goes on, what was asked for is
// done.
func TestPlatformdKilled(t *testing.T) {
	id := newDisk(t)
	b := bindOf(id, 1, loop("a"), webService())
	v := startVM(t)
	v.bind(b)
	v.kill("platformd") // in the middle of the bind
	v.await("healthy", inState(guestapi.StateHealthy))
	before := v.health().Services
	v.sh("echo page > /data/page")
	for range 3 {
		v.kill("platformd")
		v.await("healthy again", func(h guestapi.Health) bool {
			return h.State == guestapi.StateHealthy && len(h.Services) == 2 &&
				h.Services[0].State == "ready" && h.Services[1].State == "ready"
		})
	}
	for i, s := range v.health().Services {
		if s.PID != before[i].PID || s.Restarts != 0 {
			t.Errorf("service %s was %+v, is %+v", s.Name, before[i], s)
		}
	}
	if text, err := v.get("ports/8080/page"); err != nil || text != "page\n" {
		t.Errorf("service after the crash: %q %v", text, err)
	}
	if err := v.post("services/a/restart"); err != nil {
		t.Fatal(err)
	}
	v.awaitService("a", "restarted by the new platformd", func(s fleet.ServiceReport) bool {
		return s.State == "ready" && s.PID != before[0].PID
	})
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		text, err := v.get("logs?service=a")
		if err == nil && strings.Count(text, "hello from a") == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("log over crashes: %q %v", text, err)
		}
	}
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		_ = v.call(t.Context(), "POST", guestapi.PathReleaseMachine,
			guestapi.ReleaseMachine{Machine: b.Machine, Generation: b.Generation}, nil)
	}()
	v.await("stopping", func(h guestapi.Health) bool {
		return h.State == guestapi.StateStopping || h.State == guestapi.StateReleased
	})
	v.kill("platformd") // in the middle of the release
	<-asked
	v.await("released", inState(guestapi.StateReleased))
	fsck(t, id)
}

// TestPlatformdKilledEarly kills it while the container is being made, and what it has started is
// still at it.
func TestPlatformdKilledEarly(t *testing.T) {
	id := newDisk(t)
	v := startVM(t)
	for i := range 5 {
		time.Sleep(time.Duration(i) * 12 * time.Millisecond)
		v.kill("platformd")
		v.await("back", func(guestapi.Health) bool { return true })
	}
	b := bindOf(id, 1, loop("a"))
	v.bind(b)
	v.await("healthy", inState(guestapi.StateHealthy))
	v.release(b)
	fsck(t, id)
}

// TestBlockdKilled: the machine fails, says so, and the VM ends; what was acknowledged is in the
// store.
func TestBlockdKilled(t *testing.T) {
	id := newDisk(t)
	v := startVM(t)
	v.bind(bindOf(id, 1, loop("a")))
	v.await("healthy", inState(guestapi.StateHealthy))
	v.sh("echo acknowledged > /data/file; sync")
	v.kill("blockd")
	h := v.await("failed", inState(guestapi.StateFailed))
	if h.ErrorKind != string(errs.Unavailable) || h.Remedy == "" {
		t.Errorf("health %+v", h)
	}
	select {
	case <-v.Done():
	case <-time.After(2 * time.Minute):
		t.Fatal("the VM doesn't end")
	}
	b := bindOf(id, 1) // the same placement, once more, in a fresh VM
	w := startVM(t)
	w.bind(b)
	w.await("healthy", inState(guestapi.StateHealthy))
	if got := w.sh("cat /data/file"); got != "acknowledged\n" {
		t.Errorf("data: %q", got)
	}
	w.release(b)
	fsck(t, id)
}

// TestFenced starts a machine twice: the older one finds out, ends its processes and writes no
// more.
func TestFenced(t *testing.T) {
	id := newDisk(t)
	old := startVM(t)
	old.bind(bindOf(id, 1, loop("a")))
	old.await("healthy", inState(guestapi.StateHealthy))
	writing := old.dialExec(shell("read go; while :; do date > /data/zombie; sync; done",
		"stdin", "1"))
	defer writing.CloseNow()
	b := bindOf(id, 2)
	v := startVM(t)
	v.bind(b)
	v.await("healthy", inState(guestapi.StateHealthy))
	// it may have been ended already
	_ = writing.Write(t.Context(), websocket.MessageBinary, stdin("go\n"))
	h := old.await("fenced", inState(guestapi.StateFenced))
	if h.ErrorKind != string(errs.Fenced) || h.Remedy == "" {
		t.Errorf("health %+v", h)
	}
	if r := v.exec(shell("cat /data/zombie")); r.code == 0 {
		t.Errorf("the old one's write is there: %q", r.stdout)
	}
	if err := old.call(t.Context(), "POST", guestapi.PathReleaseMachine,
		guestapi.ReleaseMachine{Machine: id, Generation: 1}, nil); !errs.Is(err, errs.Fenced) {
		t.Errorf("release of a fenced machine: %v", err)
	}
	if err := old.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.release(b)
	fsck(t, id)
}

// TestReleaseWhileAttaching releases at random early moments: the disk is closed, or was never
// opened.
func TestReleaseWhileAttaching(t *testing.T) {
	id := newDisk(t)
	for gen := range fleet.Generation(8) {
		b := bindOf(id, gen+1, loop("a"))
		v := startVM(t)
		v.await("empty", made)
		v.bind(b)
		time.Sleep(time.Duration(gen) * 8 * time.Millisecond)
		if h := v.release(b); h.State != guestapi.StateReleased {
			t.Fatalf("state %s", h.State)
		}
		if info, err := disk.Info(t.Context(), shared.store, "disks/"+string(id)); err != nil ||
			info.Head.Generation == 0 {
			t.Logf("generation %d: released before the attach, %v", gen+1, err)
			continue
		}
		fsck(t, id)
	}
}

func TestRefusals(t *testing.T) {
	id := newDisk(t)
	v := startVM(t)
	good := bindOf(id, 1)
	for name, change := range map[string]func(*guestapi.Bind){
		"no generation": func(b *guestapi.Bind) { b.Generation = 0 },
		"bad name":      func(b *guestapi.Bind) { b.Name = "No Name" },
		"unknown need": func(b *guestapi.Bind) {
			b.Config.Services = []fleet.Service{loop("a", "b")}
		},
		"circle": func(b *guestapi.Bind) {
			b.Config.Services = []fleet.Service{loop("a", "b"), loop("b", "a")}
		},
		"twice": func(b *guestapi.Bind) {
			b.Config.Services = []fleet.Service{loop("a"), loop("a")}
		},
		"no command": func(b *guestapi.Bind) {
			b.Config.Services = []fleet.Service{{Name: "a"}}
		},
		"signal":       func(b *guestapi.Bind) { b.Config.Stop.Signal = "SIGNOTHING" },
		"stop timeout": func(b *guestapi.Bind) { b.Config.Stop.Timeout = time.Hour },
	} {
		b := good
		change(&b)
		if err := v.call(t.Context(), "POST", guestapi.PathBind, b, nil); !errs.Is(err,
			errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if h := v.health(); h.State != guestapi.StateEmpty {
		t.Fatalf("after refusals: %s", h.State)
	}
	if _, err := v.get("services"); !errs.Is(err, errs.Unavailable) {
		t.Errorf("services of an empty VM: %v", err)
	}
	token := v.token
	v.token = "wrong"
	if err := v.call(t.Context(), "GET", guestapi.PathHealth, nil, nil); !errs.Is(err,
		errs.Denied) {
		t.Errorf("wrong token: %v", err)
	}
	v.token = token
	if err := v.call(t.Context(), "POST", guestapi.PathPrepare,
		guestapi.Prepare{Machine: id, Store: good.Store}, nil); err != nil {
		t.Fatal(err)
	}
	v.await("prepared", inState(guestapi.StatePrepared))
	v.bind(good)
	other := good
	other.Generation = 2
	if err := v.call(t.Context(), "POST", guestapi.PathBind, other, nil); !errs.Is(err,
		errs.Conflict) {
		t.Errorf("second bind: %v", err)
	}
	v.await("healthy", inState(guestapi.StateHealthy))
	v.release(good)
	// An attach by an older generation is refused by the disk, whoever asks.
	missing := bindOf("c0ffffffffffff", 1)
	w := startVM(t)
	w.bind(missing)
	if h := w.await("failed", inState(guestapi.StateFailed)); h.ErrorKind != string(errs.NotFound) {
		t.Errorf("bind of a missing disk: %+v", h)
	}
}

// TestReleaseWithoutStore: a release waits for the store, and does all it has to once that is back.
func TestReleaseWithoutStore(t *testing.T) {
	id := newDisk(t)
	b := bindOf(id, 1, loop("a"))
	v := startVM(t)
	v.bind(b)
	v.await("healthy", inState(guestapi.StateHealthy))
	v.sh("echo last words > /data/file")
	v.cut.Store(true)
	released := make(chan error, 1)
	go func() {
		released <- v.call(t.Context(), "POST", guestapi.PathReleaseMachine,
			guestapi.ReleaseMachine{Machine: id, Generation: 1}, nil)
	}()
	select {
	case err := <-released:
		t.Fatalf("released without a store: %v", err)
	case <-time.After(1500 * time.Millisecond):
	}
	if h := v.health(); h.State != guestapi.StateStopping {
		t.Errorf("state %s", h.State)
	}
	v.cut.Store(false)
	select {
	case err := <-released:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(2 * time.Minute):
		t.Fatalf("not released: %+v", v.health())
	}
	fsck(t, id)
	w := startVM(t)
	c := bindOf(id, 2)
	w.bind(c)
	w.await("healthy", inState(guestapi.StateHealthy))
	if got := w.sh("cat /data/file"); got != "last words\n" {
		t.Errorf("data %q", got)
	}
	w.release(c)
}
