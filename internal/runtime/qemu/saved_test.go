package qemu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/runtime/runtimetest"
)

// startVM starts a VM that ends with the test, and returns how long it took until it answered.
func startVM(t testing.TB, d runtime.Driver, spec runtime.Spec) (runtime.VM, time.Duration) {
	t.Helper()
	began := time.Now()
	vm, err := d.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := runtimetest.Ask(t.Context(), vm, runtimetest.Request{Op: "echo"}); err != nil {
		t.Error(err)
	}
	return vm, time.Since(began)
}

func removeAndClose(t testing.TB, d runtime.Driver, vms ...runtime.VM) {
	t.Helper()
	var err error
	for _, vm := range vms {
		err = errors.Join(err, vm.Remove(t.Context()))
	}
	if err := errors.Join(err, d.(*Driver).Close()); err != nil {
		t.Error(err)
	}
}

// TestSavedVMsShareNothing resumes two VMs from a saved one and compares what must differ. A third one finds the
// saved VM cut in half: it fails, and the next one boots.
func TestSavedVMsShareNothing(t *testing.T) {
	d, err := newDriver(filepath.Join(t.TempDir(), fmt.Sprintf("saved-%d", os.Getpid())))
	if err != nil {
		t.Fatal(err)
	}
	rel := release(t)
	first, _ := startVM(t, d, runtime.Spec{ID: "00000001", Release: rel, Boot: []byte("1")})
	saved, _ := filepath.Glob(filepath.Join(os.Getenv(cacheEnv), "saved-*.vm"))
	before := len(saved)
	if err := first.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	var vms []runtime.VM
	said := map[string][]string{}
	for _, id := range []fleet.VMID{"00000002", "00000003"} {
		vm, took := startVM(t, d, runtime.Spec{ID: id, Release: rel, Boot: []byte(id)})
		t.Logf("resumed and answered in %v", took)
		vms = append(vms, vm)
		for _, file := range []string{"/proc/sys/kernel/random/boot_id", "/proc/sys/kernel/random/uuid", "/proc/sys/kernel/hostname", "/run/sluice/boot.json"} {
			ans, err := runtimetest.Ask(t.Context(), vm, runtimetest.Request{Op: "read-file", Path: file})
			if err != nil {
				t.Fatal(err)
			}
			if slices.Contains(said[file], string(ans.Data)) {
				t.Errorf("both VMs have %q in %s", ans.Data, file)
			}
			said[file] = append(said[file], string(ans.Data))
		}
	}
	if saved, _ = filepath.Glob(filepath.Join(os.Getenv(cacheEnv), "saved-*.vm")); len(saved) != before || before == 0 {
		t.Errorf("%d VMs saved, %d before", len(saved), before)
	}
	removeAndClose(t, d, vms...)
}

// TestBrokenSavedVMIsForgotten cuts a saved VM short: the VM that was to be resumed from it fails, the next one boots.
func TestBrokenSavedVMIsForgotten(t *testing.T) {
	t.Setenv(cacheEnv, t.TempDir())
	d, err := newDriver(filepath.Join(t.TempDir(), fmt.Sprintf("broken-%d", os.Getpid())))
	if err != nil {
		t.Fatal(err)
	}
	rel := release(t)
	first, _ := startVM(t, d, runtime.Spec{ID: "00000001", Release: rel})
	if err := first.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	saved, _ := filepath.Glob(filepath.Join(os.Getenv(cacheEnv), "saved-*.vm"))
	if len(saved) != 1 {
		t.Fatalf("saved: %v", saved)
	}
	if err := os.Truncate(saved[0], 1<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Start(t.Context(), runtime.Spec{ID: "00000002", Release: rel}); err == nil {
		t.Fatal("a VM was resumed from half of one")
	}
	third, _ := startVM(t, d, runtime.Spec{ID: "00000003", Release: rel})
	removeAndClose(t, d, third)
}

// BenchmarkStart is from nothing to the first answer: by booting a kernel, and by resuming a saved VM.
func BenchmarkStart(b *testing.B) {
	rel := release(b)
	took := map[bool]time.Duration{}
	for _, cold := range []bool{true, false} {
		d, err := newDriverWith(filepath.Join(b.TempDir(), fmt.Sprintf("bench-%d", os.Getpid())), cold)
		if err != nil {
			b.Fatal(err)
		}
		warm, _ := startVM(b, d, runtime.Spec{ID: "00000001", Release: rel}) // makes what is made once
		if err := warm.Remove(b.Context()); err != nil {
			b.Error(err)
		}
		const rounds = 5
		var started, answered []time.Duration
		for i := range rounds {
			began := time.Now()
			vm, err := d.Start(b.Context(), runtime.Spec{ID: fleet.VMID(fmt.Sprintf("%08x", i+2)), Release: rel})
			if err != nil {
				b.Fatal(err)
			}
			started = append(started, time.Since(began))
			if _, err := runtimetest.Ask(b.Context(), vm, runtimetest.Request{Op: "echo"}); err != nil {
				b.Error(err)
			}
			answered = append(answered, time.Since(began))
			if err := vm.Remove(b.Context()); err != nil {
				b.Error(err)
			}
		}
		slices.Sort(started)
		slices.Sort(answered)
		took[cold] = started[rounds/2]
		name := map[bool]string{true: "cold", false: "saved"}[cold]
		b.ReportMetric(float64(started[rounds/2].Milliseconds()), name+"-init-p50-ms")
		b.ReportMetric(float64(answered[rounds/2].Milliseconds()), name+"-answer-p50-ms")
		removeAndClose(b, d)
	}
	b.ReportMetric(float64(took[true])/float64(took[false]), "cold/saved")
}
