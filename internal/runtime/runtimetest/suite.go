package runtimetest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/runtime"
)

// Harness is a driver under test.
type Harness struct {
	// New makes a driver over a directory, as a worker does at its start. What the driver makes
	// elsewhere on the host (cgroups, processes' command lines) has the last element of dir in its
	// name, so that the suite finds what is left. If the driver has Close, the suite calls it.
	New func(dir string) (runtime.Driver, error)
	// Release is the directory of a release made from the guest program; see Release.
	Release string
	// Pace is for VMs that take longer to start. Zero fields mean what suits those that take some
	// 20 ms.
	Pace Pace
	// OwnKernel is set where a VM has one: its pipes can't be the worker's.
	OwnKernel bool
	// CPUTime is the CPU time that a VM has used, as its host sees it; nil where the VM's own
	// account says that.
	CPUTime func(vm runtime.VM) (time.Duration, error)
}

// Pace is how much is tried, and how long it may take.
type Pace struct {
	Step time.Duration // bounds one step; default 20 s
	// a start takes less than that, mostly: moments in it are chosen; default 60 ms
	Start      time.Duration
	Moments    int // starts that are given up at some moment in it; default 12
	Many       int // VMs that are started at once; default 6
	KillRounds int // workers killed in the middle of a start; default 25
}

func (p *Pace) setDefaults() {
	if *p == (Pace{}) {
		*p = Pace{Step: 20 * time.Second, Start: 60 * time.Millisecond, Moments: 12, Many: 6,
			KillRounds: 25}
	}
}

// Run runs the whole suite. The test binary's TestMain must call Worker with the same New.
func Run(t *testing.T, h Harness) {
	h.Pace.setDefaults()
	cases := []struct {
		name string
		run  func(t *testing.T, e *env)
	}{
		{"Probe", testProbe},
		{"StartAndDial", testStartAndDial},
		{"StartRefuses", testStartRefuses},
		{"StartCancelled", testStartCancelled},
		{"StartMany", testStartMany},
		{"BootDocument", testBootDocument},
		{"HostLink", testHostLink},
		{"CacheDevice", testCacheDevice},
		{"Console", testConsole},
		{"FreezeAndThaw", testFreezeAndThaw},
		{"Clock", testClock},
		{"LimitCPU", testLimitCPU},
		{"LimitMemory", testLimitMemory},
		{"EndsByItself", testEndsByItself},
		{"KillForks", testKillForks},
		{"KillFrozen", testKillFrozen},
		{"KillStuckDisk", testKillStuckDisk},
		{"Isolation", testIsolation},
		{"Walls", testWalls},
		{"AdoptAfterKill", testAdoptAfterKill},
		{"AdoptEnded", testAdoptEnded},
		{"WorkerKilledInStart", testWorkerKilledInStart},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.run(t, newEnv(t, h)) })
	}
}

// env is one case's worker: a driver over a directory of its own.
type env struct {
	Harness
	t      *testing.T
	dir    string
	driver runtime.Driver
	ids    []fleet.VMID
}

// newEnv makes a driver that is closed, with all its VMs gone, when the test ends. What is left
// then is an error.
func newEnv(t *testing.T, h Harness) *env {
	t.Helper()
	e := &env{Harness: h, t: t, dir: filepath.Join(t.TempDir(), "rt-"+randomID())}
	t.Cleanup(e.finish)
	return e
}

// open starts the worker's driver; the one before it is closed, as by a restart.
func (e *env) open() runtime.Driver {
	e.t.Helper()
	e.close()
	d, err := e.New(e.dir)
	if err != nil {
		e.t.Fatalf("new driver: %v", err)
	}
	e.driver = d
	return d
}

func (e *env) close() {
	e.t.Helper()
	if c, ok := e.driver.(io.Closer); ok {
		if err := c.Close(); err != nil {
			e.t.Errorf("close driver: %v", err)
		}
	}
	e.driver = nil
}

// finish removes every VM by the way that a restarted worker would.
func (e *env) finish() {
	e.close()
	d, err := e.New(e.dir)
	if err != nil {
		e.t.Errorf("new driver at the end: %v", err)
		return
	}
	e.driver = d
	ctx, cancel := context.WithTimeout(context.Background(), e.Pace.Step)
	defer cancel()
	vms, err := d.Adopt(ctx)
	if err != nil {
		e.t.Errorf("adopt at the end: %v", err)
	}
	for _, vm := range vms {
		if err := vm.Remove(ctx); err != nil {
			e.t.Errorf("remove VM %s at the end: %v", vm.ID(), err)
		}
	}
	e.close()
	e.checkNothingLeft(ctx)
}

// start starts a VM with a fresh id; change may be nil.
func (e *env) start(change func(*runtime.Spec)) runtime.VM {
	e.t.Helper()
	if e.driver == nil {
		e.open()
	}
	spec := e.spec()
	if change != nil {
		change(&spec)
	}
	vm, err := e.driver.Start(e.context(), spec)
	if err != nil {
		e.t.Fatalf("start VM: %v", err)
	}
	return vm
}

func (e *env) spec() runtime.Spec {
	id := fleet.VMID(randomID())
	e.ids = append(e.ids, id)
	return runtime.Spec{ID: id, Release: e.Release, Boot: []byte(`{"vm":"` + string(id) + `"}`)}
}

// context bounds one step: nothing of a VM may take longer.
func (e *env) context() context.Context {
	ctx, cancel := context.WithTimeout(e.t.Context(), e.Pace.Step)
	e.t.Cleanup(cancel)
	return ctx
}

func (e *env) remove(vm runtime.VM) {
	e.t.Helper()
	if err := vm.Remove(e.context()); err != nil {
		e.t.Fatalf("remove VM: %v", err)
	}
}

func (e *env) waitDone(vm runtime.VM) {
	e.t.Helper()
	select {
	case <-vm.Done():
	case <-e.context().Done():
		e.t.Fatalf("VM %s doesn't end", vm.ID())
	}
}

func randomID() string {
	b := make([]byte, 4)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
