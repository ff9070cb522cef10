package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/runtime/runtimetest"
)

// BenchmarkVM starts VMs one after the other, asks each something, and removes it.
func BenchmarkVM(b *testing.B) {
	d, err := newDriver(filepath.Join(b.TempDir(), fmt.Sprintf("bench-%d", os.Getpid())))
	if err != nil {
		b.Fatal(err)
	}
	release := runtimetest.Release(b)
	var started, answered, removed time.Duration
	for i := 0; b.Loop(); i++ {
		began := time.Now()
		vm, err := d.Start(b.Context(), runtime.Spec{
			ID: fleet.VMID(fmt.Sprintf("%08x", i)), Release: release, CacheBytes: 1 << 30,
			Limits: fleet.Resources{CPUMillis: 1000, MemoryMiB: 512},
		})
		if err != nil {
			b.Fatal(err)
		}
		at := time.Since(began)
		started += at
		if _, err := runtimetest.Ask(b.Context(), vm, runtimetest.Request{Op: "echo"}); err != nil {
			b.Error(err)
		}
		answered += time.Since(began)
		began = time.Now()
		if err := vm.Remove(b.Context()); err != nil {
			b.Fatal(err)
		}
		removed += time.Since(began)
	}
	for name, total := range map[string]time.Duration{"start": started, "start-to-answer": answered,
		"remove": removed} {
		b.ReportMetric(float64(total.Microseconds())/1000/float64(b.N), name+"-ms")
	}
	if err := d.(*Driver).Close(); err != nil {
		b.Fatal(err)
	}
}
