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

// TestSavedVMsShareNothing resumes two VMs from a saved one and compares what must differ. A third
// one finds the saved VM cut in half: it fails, and the next one boots.
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
		for _, file := range []string{"/proc/sys/kernel/random/boot_id",
			"/proc/sys/kernel/random/uuid", "/proc/sys/kernel/hostname", "/run/sluice/boot.json"} {
			ans, err := runtimetest.Ask(t.Context(), vm,
				runtimetest.Request{Op: "read-file", Path: file})
			if err != nil {
				t.Fatal(err)
			}
			if slices.Contains(said[file], string(ans.Data)) {
				t.Errorf("both VMs have %q in %s", ans.Data, file)
			}
			said[file] = append(said[file], string(ans.Data))
		}
	}
	if saved, _ = filepath.Glob(filepath.Join(os.Getenv(cacheEnv), "saved-*.vm")); len(
		saved) != before || before == 0 {
		t.Errorf("%d VMs saved, %d before", len(saved), before)
	}
	removeAndClose(t, d, vms...)
}

// TestBrokenSavedVMIsForgotten cuts a saved VM short: the VM that was to be resumed from it fails,
// the next one boots.
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
