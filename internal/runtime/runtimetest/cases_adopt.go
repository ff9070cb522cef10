package runtimetest

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/runtime"
)

func (e *env) adopt(want ...fleet.VMID) map[fleet.VMID]runtime.VM {
	e.t.Helper()
	d := e.driver
	if d == nil {
		d = e.open()
	}
	vms, err := d.Adopt(e.context())
	if err != nil {
		e.t.Fatalf("adopt: %v", err)
	}
	found := map[fleet.VMID]runtime.VM{}
	for _, vm := range vms {
		found[vm.ID()] = vm
	}
	for _, id := range want {
		if found[id] == nil {
			e.t.Fatalf("VM %s wasn't adopted", id)
		}
	}
	return found
}

func testAdoptAfterKill(t *testing.T, e *env) {
	w, ids := e.runWorker(2, func(s *runtime.Spec) { s.CacheBytes = cacheSize })
	w.waitFor(t, "started "+string(ids[1]))
	w.kill()
	vms := e.adopt(ids...)
	if len(vms) != 2 {
		t.Fatalf("adopted %d VMs", len(vms))
	}
	for _, vm := range vms {
		if st := vm.Status(); !st.Running || time.Since(st.StartedAt) > e.Pace.Step {
			t.Fatalf("status: %+v", st)
		}
		mustAsk(t, vm, Request{Op: "echo"})
	}
	again := e.adopt(ids...)
	if again[ids[0]] != vms[ids[0]] {
		t.Error("adopting twice makes two of one VM")
	}
	first, second := vms[ids[0]], vms[ids[1]]
	if err := first.Freeze(e.context()); err != nil {
		t.Error(err)
	}
	if err := first.Kill(e.context()); err != nil {
		t.Fatal(err)
	}
	e.waitDone(first)
	if _, err := Ask(e.context(), second, Request{Op: "exit"}); err == nil {
		t.Error("exit was answered")
	}
	e.waitDone(second)
	e.remove(first)
	e.remove(second)
	if left := e.adopt(); len(left) > 0 {
		t.Errorf("adopted after remove: %v", left)
	}
}

func testAdoptEnded(t *testing.T, e *env) {
	w, ids := e.runWorker(1, func(s *runtime.Spec) { s.CacheBytes = cacheSize })
	w.waitFor(t, "started")
	w.kill()
	vm := e.adopt(ids...)[ids[0]]
	_, _ = Ask(e.context(), vm, Request{Op: "exit"})
	e.waitDone(vm)
	e.open() // again a new worker: this one has never seen it run
	vm = e.adopt(ids...)[ids[0]]
	if st := vm.Status(); st.Running || st.Exit == "" {
		t.Fatalf("status: %+v", st)
	}
	e.remove(vm)
}

// testWorkerKilledInStart kills workers at random moments while they start VMs. A new worker adopts
// all that is there; what runs must be whole, and all must be removable without remains.
func testWorkerKilledInStart(t *testing.T, e *env) {
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	running, ended := 0, 0
	for range e.Pace.KillRounds {
		w, _ := e.runWorker(20, func(s *runtime.Spec) { s.CacheBytes = cacheSize })
		// the moment is the test
		time.Sleep(time.Duration(random.Int64N(int64(e.Pace.Start * 4 / 3))))
		w.kill()
		for id, vm := range e.adopt() {
			if vm.Status().Running {
				running++
				if _, err := Ask(e.context(), vm, Request{Op: "echo"}); err != nil &&
					vm.Status().Running {
					t.Errorf("seed %d: VM %s runs, but isn't whole: %v", seed, id, err)
				}
			} else {
				ended++
			}
			e.remove(vm)
		}
		e.checkNothingLeft(e.context())
	}
	t.Logf("%d VMs ran, %d were cut short", running, ended)
}
