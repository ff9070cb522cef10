package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/runtime/runtimetest"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/test/v2host"
)

func TestMain(m *testing.M) {
	v2host.Main()
	Child()
	runtimetest.Worker(newDriver)
	os.Exit(m.Run())
}

func newDriver(dir string) (runtime.Driver, error) {
	return New(Config{
		Dir: dir, CgroupParent: "sluice-test/" + filepath.Base(dir),
		Logger: slog.New(slog.DiscardHandler),
	})
}

func TestConformance(t *testing.T) {
	h := runtimetest.Harness{New: newDriver, Release: runtimetest.Release(t)}
	if v2host.Inside() { // on one emulated processor
		h.Pace = runtimetest.Pace{Step: 2 * time.Minute, Start: time.Second, Moments: 3, Many: 3,
			KillRounds: 4}
	}
	runtimetest.Run(t, h)
}

// TestOneVM checks, on one VM, what is promised by this driver beyond the suite.
func TestOneVM(t *testing.T) {
	dir := filepath.Join(t.TempDir(), fmt.Sprintf("one-%d", os.Getpid()))
	drv, err := newDriver(dir)
	if err != nil {
		t.Fatal(err)
	}
	d := drv.(*Driver)
	vm, err := d.Start(t.Context(), runtime.Spec{
		ID: "00c0ffee", Release: runtimetest.Release(t), CacheBytes: 1 << 20,
		Limits: fleet.Resources{CPUMillis: 1000},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), onhost.UndoTimeout)
		defer cancel()
		if err := errors.Join(vm.Remove(ctx), d.Close()); err != nil {
			t.Error(err)
		}
	}()
	t.Run("SecondWorkerIsRefused", func(t *testing.T) {
		if _, err := newDriver(dir); !errs.Is(err, errs.Conflict) {
			t.Errorf("a second driver over one directory: %v", err)
		}
	})
	t.Run("SeesOnlyItsOwn", func(t *testing.T) {
		checkSeen(t,
			ask(t, vm, runtimetest.Request{Op: "look"}).Seen)
	})
	t.Run("HostDevicesAreClosed", func(t *testing.T) { checkDevices(t, vm) })
	t.Run("CannotRaiseItsLimits", func(t *testing.T) { checkOwnLimits(t, vm) })
	t.Run("BrokerKeepsNothing", func(t *testing.T) { checkBrokerKeepsNothing(t, vm) })
	t.Run("ConsoleIsBounded", func(t *testing.T) { checkConsole(t, vm) })
	t.Run("DiesWithAFrozenDiskServer", func(t *testing.T) {
		layout, err := onhost.HostLayout()
		if err != nil {
			t.Fatal(err)
		}
		if layout.V1For("freezer") == "" {
			t.Log("pure v2: a frozen process dies when it is killed")
			return
		}
		ask(t, vm, runtimetest.Request{Op: "stall", Text: "frozen"})
		began := time.Now()
		if err := vm.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("killed in %v", time.Since(began))
	})
}

func checkSeen(t *testing.T, seen *runtimetest.Seen) {
	devices := "fd full mqueue null ptmx pts random shm sluice-cache stderr stdin stdout tty urandom zero"
	if got := strings.Join(seen.Devices, " "); got != devices {
		t.Errorf("devices: %s", got)
	}
	if got := strings.Join(seen.Processes, ", "); got != "1: sluice-init" {
		t.Errorf("processes: %s", got)
	}
	if seen.Hostname != "vm-00c0ffee" {
		t.Errorf("host name %s", seen.Hostname)
	}
	for _, line := range seen.Cgroups {
		// Where memory is bounded, init is beside the inner container; with v2 alone all is bounded
		// in one hierarchy.
		if !strings.HasSuffix(line, ":/") && !strings.HasSuffix(line, ":memory:/init") &&
			line != "0::/init" {
			t.Errorf("the VM sees where its cgroup is: %s", line)
		}
	}
	for _, m := range seen.Mounts {
		own := func(p string) bool { return m == p || strings.HasPrefix(m, p+"/") }
		if m != "/" && !slices.ContainsFunc([]string{"/usr", "/proc", "/sys", "/dev",
			"/run"}, own) {
			t.Errorf("mount %s", m)
		}
	}
	for _, m := range []string{"/usr", "/sys"} {
		if slices.Contains(seen.Writable, m) {
			t.Errorf("%s is writable", m)
		}
	}
	for fd, target := range seen.FDs {
		if n := len(fd); n == 1 && fd < "3" {
			want := "/console" // which is mounted nowhere
			if fd == "0" {
				want = "/dev/null"
			}
			if !strings.HasSuffix(target, want) {
				t.Errorf("descriptor %s is %s", fd, target)
			}
		}
	}
}

// checkDevices has the VM make nodes of the host's devices: the kernel's messages, and the loop
// device of another VM.
func checkDevices(t *testing.T, vm runtime.VM) {
	for _, device := range []int64{1<<8 | 11, 7 << 8, 10<<8 | 237} {
		_, err := runtimetest.Ask(t.Context(), vm,
			runtimetest.Request{Op: "mknod", Path: "/tmp/node", Number: device})
		if err == nil || !strings.Contains(err.Error(), "not permitted") {
			t.Errorf("the VM makes a node of device %#x: %v", device, err)
		}
	}
}

func hostLayoutOf(t *testing.T) onhost.Layout {
	t.Helper()
	l, err := onhost.HostLayout()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// checkOwnLimits has the VM lift the limits at the root of its own cgroups. That is one level too
// deep to matter.
func checkOwnLimits(t *testing.T, vm runtime.VM) {
	if hostLayoutOf(t).V1For("cpu") == "" {
		t.Log("pure v2: the VM's root cgroup has no limit files")
		return
	}
	const file = "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"
	if got := string(ask(t, vm, runtimetest.Request{Op: "read-file",
		Path: file}).Data); got != "-1\n" {
		t.Errorf("the VM sees the file that limits it: %q", got)
	}
}

// checkConsole has the VM print more than a console file may hold.
func checkConsole(t *testing.T, vm runtime.VM) {
	text := strings.Repeat("console ", 1<<17) // 1 MiB
	for range 6 {
		ask(t, vm, runtimetest.Request{Op: "print", Text: text})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	err := onhost.Poll(ctx, func() (bool, error) {
		st, err := os.Stat(vm.ConsolePath())
		_, oldErr := os.Stat(vm.ConsolePath() + ".1")
		return err == nil && st.Size() <= onhost.ConsoleMax && oldErr == nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	old, err := os.Stat(vm.ConsolePath() + ".1")
	if err != nil || old.Size() != onhost.ConsoleKept {
		t.Fatalf("kept: %v, %v", old, err)
	}
	ask(t, vm, runtimetest.Request{Op: "print", Text: "after"})
	var b []byte
	err = onhost.Poll(ctx, func() (_ bool, err error) {
		b, err = os.ReadFile(vm.ConsolePath())
		return strings.HasSuffix(string(b), "after\n"), err
	})
	if err != nil || strings.Contains(string(b), "\x00") {
		t.Fatalf("after the cut: %d bytes, %v", len(b), err)
	}
}

// TestConsoleWithoutAWorker: while no worker runs, a VM fills nobody's disk by writing to its
// console, whose beginning the next worker finds.
func TestConsoleWithoutAWorker(t *testing.T) {
	dir := filepath.Join(t.TempDir(), fmt.Sprintf("alone-%d", os.Getpid()))
	first, err := newDriver(dir)
	if err != nil {
		t.Fatal(err)
	}
	vm, err := first.Start(t.Context(), runtime.Spec{ID: "00c0ffed",
		Release: runtimetest.Release(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // what fails leaves no VM
		if err := vm.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := first.(*Driver).Close(); err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("console ", 1<<17) // 1 MiB
	var full error
	for i := 0; i < 20 && full == nil; i++ {
		_, full = runtimetest.Ask(t.Context(), vm, runtimetest.Request{Op: "print", Text: text})
	}
	if full == nil {
		t.Error("it could write 20 MiB")
	}
	if st, err := os.Stat(vm.ConsolePath()); err == nil && st.Size() > onhost.ConsoleMax {
		t.Errorf("its console has %d bytes on the host's disk", st.Size())
	}
	second, err := newDriver(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	vms, err := second.Adopt(ctx)
	if err != nil || len(vms) != 1 {
		t.Fatalf("adopted %v, %v", vms, err)
	}
	err = onhost.Poll(ctx, func() (bool, error) {
		st, err := os.Stat(vms[0].ConsolePath() + ".1")
		return err == nil && st.Size() == onhost.ConsoleKept, nil
	})
	if err != nil {
		t.Errorf("what it wrote meanwhile: %v", err)
	}
	if err := errors.Join(vms[0].Remove(ctx), second.(*Driver).Close()); err != nil {
		t.Error(err)
	}
}

func ask(t *testing.T, vm runtime.VM, req runtimetest.Request) runtimetest.Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ans, err := runtimetest.Ask(ctx, vm, req)
	if err != nil {
		t.Fatalf("%s: %v", req.Op, err)
	}
	return ans
}

// checkBrokerKeepsNothing looks at the mounts of the VM's broker: one of the host's there would
// last until the VM has ended, for whoever waits for its end.
func checkBrokerKeepsNothing(t *testing.T, started runtime.VM) {
	pids, err := os.ReadFile(filepath.Join(started.(*vm).Cgroups.Beside(), "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	var mounts string
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = onhost.Poll(ctx, func() (bool, error) { // it leaves them while the VM's init starts
		b, err := os.ReadFile(filepath.Join("/proc", strings.TrimSpace(string(pids)), "mounts"))
		var at []string
		for line := range strings.Lines(string(b)) {
			at = append(at, strings.Fields(line)[1])
		}
		slices.Sort(at)
		mounts = strings.Join(at, " ")
		return mounts == "/ /dev /sys", err
	})
	if err != nil {
		t.Errorf("the broker has mounts at %s: %v", mounts, err)
	}
}
