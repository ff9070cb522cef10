package runtimetest

import (
	"context"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// openInherited opens path so that it would pass to any program that is started without care.
func openInherited(t *testing.T, path string) (closeFD func()) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return func() { _ = unix.Close(fd) }
}

func testFreezeAndThaw(t *testing.T, e *env) {
	vm := e.start(nil)
	mustAsk(t, vm, Request{Op: "echo"})
	for range 2 { // twice is as once
		if err := vm.Freeze(e.context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := Ask(ctx, vm, Request{Op: "echo"}); err == nil {
		t.Fatal("a frozen VM answers")
	}
	if !vm.Status().Running {
		t.Fatal("a frozen VM isn't running")
	}
	for range 2 {
		if err := vm.Thaw(e.context()); err != nil {
			t.Fatal(err)
		}
	}
	mustAsk(t, vm, Request{Op: "echo"})
}

// testClock checks that a VM knows what time it is: at its start, however it was made, and after a
// freeze.
func testClock(t *testing.T, e *env) {
	const off = 500 * time.Millisecond
	vm := e.start(nil)
	check := func(when string) {
		before := time.Now()
		then := time.Unix(0, mustAsk(t, vm, Request{Op: "clock"}).Number)
		after := time.Now()
		t.Logf("%s the VM's clock is between %v and %v off", when, then.Sub(after),
			then.Sub(before))
		if then.Before(before.Add(-off)) || then.After(after.Add(off)) {
			t.Errorf("%s the VM's clock is %v off", when, then.Sub(before))
		}
	}
	check("at the start")
	if err := vm.Freeze(e.context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * off) // the time that it is frozen for is the test
	if err := vm.Thaw(e.context()); err != nil {
		t.Fatal(err)
	}
	check("after a freeze")
}

// testLimitCPU checks that a VM gets no more than its bound, and more with a higher one. How much
// more depends on what else the host does: any share counts that the lower bound would not have let
// it have.
func testLimitCPU(t *testing.T, e *env) {
	const wall = 500 * time.Millisecond
	vm := e.start(func(s *runtime.Spec) { s.Limits = fleet.Resources{CPUMillis: 200} })
	share := func() float64 { return e.cpuShare(vm, wall) }
	bounded := share()
	if bounded > 0.45 {
		t.Fatalf("got %.2f cores with a bound of 0.2", bounded)
	}
	if err := vm.SetLimits(e.context(), fleet.Resources{CPUMillis: 2000}); err != nil {
		t.Fatal(err)
	}
	best := 0.0
	for began := time.Now(); time.Since(began) < e.Pace.Step; {
		if best = max(best, share()); best > max(0.3, 1.5*bounded) {
			return
		}
	}
	t.Fatalf("a higher bound changes nothing: %.2f cores, and %.2f before", best, bounded)
}

// cpuShare has a VM burn CPU for a while, by its own clock, and returns how much it got, in cores.
func (e *env) cpuShare(vm runtime.VM, wall time.Duration) float64 {
	e.t.Helper()
	if e.CPUTime == nil {
		return float64(mustAsk(e.t, vm,
			Request{Op: "spin", Number: int64(wall)}).Number) / float64(wall)
	}
	before, err := e.CPUTime(vm)
	if err != nil {
		e.t.Fatal(err)
	}
	began := time.Now()
	mustAsk(e.t, vm, Request{Op: "spin", Number: int64(wall)})
	took := time.Since(began)
	after, err := e.CPUTime(vm)
	if err != nil {
		e.t.Fatal(err)
	}
	return float64(after-before) / float64(took)
}

func testLimitMemory(t *testing.T, e *env) {
	vm := e.start(func(s *runtime.Spec) { s.Limits = fleet.Resources{MemoryMiB: 96} })
	if ans := mustAsk(t, vm, Request{Op: "child", Text: "allocate", Path: "32"}); ans.Number != 0 {
		t.Fatalf("32 MiB of 96: %s", ans.Text)
	}
	if ans := mustAsk(t, vm, Request{Op: "child", Text: "allocate",
		Path: "200"}); ans.Number != int64(syscall.SIGKILL) {
		t.Fatalf("200 MiB of 96: %s", ans.Text)
	}
	mustAsk(t, vm, Request{Op: "echo"}) // the VM itself lives on
	if err := vm.SetLimits(e.context(), fleet.Resources{MemoryMiB: 320}); err != nil {
		t.Fatal(err)
	}
	if ans := mustAsk(t, vm, Request{Op: "child", Text: "allocate", Path: "200"}); ans.Number != 0 {
		t.Fatalf("200 MiB of 320: %s", ans.Text)
	}
	if err := vm.SetLimits(e.context(), fleet.Resources{MemoryMiB: -1}); !errs.Is(err,
		errs.Invalid) {
		t.Fatalf("a bound of -1 MiB: %v", err)
	}
}

func testEndsByItself(t *testing.T, e *env) {
	vm := e.start(func(s *runtime.Spec) { s.CacheBytes = cacheSize })
	mustAsk(t, vm, Request{Op: "echo"})
	_, _ = Ask(e.context(), vm, Request{Op: "exit", Number: 3}) // the answer may not come any more
	e.waitDone(vm)
	if st := vm.Status(); st.Running || st.Exit == "" {
		t.Fatalf("status after the end: %+v", st)
	}
	if _, err := vm.Dial(e.context()); !errs.Is(err, errs.Unavailable) {
		t.Errorf("dial: %v", err)
	}
	if err := vm.Freeze(e.context()); err == nil {
		t.Error("an ended VM can be frozen")
	}
	for range 2 {
		if err := vm.Kill(e.context()); err != nil {
			t.Errorf("kill: %v", err)
		}
	}
	e.remove(vm)
}

func testKillForks(t *testing.T, e *env) {
	vm := e.start(nil)
	mustAsk(t, vm, Request{Op: "spawn", Text: "sleep", Path: "1h", Number: 30})
	if err := vm.Kill(e.context()); err != nil {
		t.Fatal(err)
	}
	if left := processesOf(filepath.Base(e.dir)); len(left) > 0 {
		t.Fatalf("after kill: %v", left)
	}
	e.waitDone(vm)
}

func testKillFrozen(t *testing.T, e *env) {
	vm := e.start(nil)
	mustAsk(t, vm, Request{Op: "spawn", Text: "sleep", Path: "1h", Number: 3})
	if err := vm.Freeze(e.context()); err != nil {
		t.Fatal(err)
	}
	e.remove(vm)
	e.waitDone(vm)
}

// testKillStuckDisk kills a VM in which a process hangs in fsync on ext4 on a loop device on a FUSE
// file whose server is stopped.
func testKillStuckDisk(t *testing.T, e *env) {
	vm := e.start(nil)
	if _, err := Ask(e.context(), vm, Request{Op: "stall", Text: "stop"}); err != nil {
		t.Fatalf("guest: stall: %v", err)
	}
	if err := vm.Freeze(e.context()); err != nil {
		t.Errorf("freeze: %v", err)
	}
	if err := vm.Thaw(e.context()); err != nil {
		t.Errorf("thaw: %v", err)
	}
	began := time.Now()
	if err := vm.Kill(e.context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("killed in %v", time.Since(began))
	e.remove(vm)
	e.checkNothingLeft(e.context())
}
