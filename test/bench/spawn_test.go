//go:build bench

package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/runtime/qemu"
	"github.com/sluice-platform/sluice/internal/worker/pool"
	"github.com/sluice-platform/sluice/test/fleettest"
)

// spawner boots VMs as a worker does for its pool, each when it is asked for.
type spawner struct {
	runtime.Driver
	close func() error
	pool  *pool.Pool
	init  time.Duration // until init ran, of the newest
}

// Start notes how long the runtime's part takes.
func (s *spawner) Start(ctx context.Context, spec runtime.Spec) (runtime.VM, error) {
	began := time.Now()
	vm, err := s.Driver.Start(ctx, spec)
	s.init = time.Since(began)
	return vm, err
}

func newSpawner(t *testing.T, release, cache string, cold bool) *spawner {
	t.Helper()
	dir := filepath.Join(t.TempDir(), fmt.Sprintf("spawn-%v-%d", cold, os.Getpid()))
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	driver, err := qemu.New(qemu.Config{Dir: dir, CacheDir: cache,
		CgroupParent: "sluice-bench/" + filepath.Base(dir), Cold: cold, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	registry, err := pool.OpenRegistry(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &spawner{Driver: driver, close: driver.Close}
	s.pool = pool.New(pool.Config{
		BootTimeout: 3 * time.Minute, Release: "bench", ReleaseDir: release, CacheBytes: 1 << 30,
		Limits: fleet.Resources{MemoryMiB: 256},
	}, pool.Deps{Driver: s, Registry: registry, Logger: log, Now: time.Now,
		Busy: func() bool { return false }, Changed: func() {}})
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- s.pool.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-over, s.close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// spawn returns how long it took from the wish to a VM whose platform says that it can be bound,
// and how much of the host's processors, which is the same on a busy host.
func (s *spawner) spawn(t *testing.T) (took, cpu time.Duration) {
	t.Helper()
	began := time.Now()
	vm, err := s.pool.Claim(t.Context())
	took = time.Since(began)
	if err == nil {
		cpu, err = cpuOf("vm-" + string(vm.ID()))
		err = errors.Join(err, s.pool.Discard(t.Context(), vm))
	}
	if err != nil {
		t.Fatal(err)
	}
	return took, cpu
}

// cpuOf returns what the process with an argument has used of the processors.
func cpuOf(argument string) (time.Duration, error) {
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return 0, err
	}
	for _, file := range all {
		line, err := os.ReadFile(file)
		if err != nil || !slices.Contains(strings.Split(string(line), "\x00"), argument) {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(file), "stat"))
		if err != nil {
			return 0, err
		}
		_, after, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(after)
		var ticks time.Duration
		// in user mode and in the kernel, in hundredths of a second
		for _, f := range fields[11:13] {
			n, err := strconv.Atoi(f)
			if err != nil {
				return 0, err
			}
			ticks += time.Duration(n)
		}
		return ticks * 10 * time.Millisecond, nil
	}
	return 0, fmt.Errorf("no process has the argument %s", argument)
}

// TestSpawnToBindable measures what an empty pool costs under the qemu runtime: from nothing to a
// VM that can be bound, by booting its kernel, and from a saved VM, by turns.
func TestSpawnToBindable(t *testing.T) {
	const rounds = 5
	release, cache := fleettest.Release(t), t.TempDir()
	kinds := []string{"cold boot", "from the saved VM"}
	took, init, cpu := map[string][]time.Duration{}, map[string][]time.Duration{},
		map[string][]time.Duration{}
	spawners := map[string]*spawner{}
	for i, kind := range kinds {
		spawners[kind] = newSpawner(t, release, cache, i == 0)
		spawners[kind].spawn(t) // makes what is made once
	}
	for range rounds {
		for _, kind := range kinds {
			whole, cpus := spawners[kind].spawn(t)
			took[kind], cpu[kind] = append(took[kind], whole), append(cpu[kind], cpus)
			init[kind] = append(init[kind], spawners[kind].init)
		}
	}
	for _, kind := range kinds {
		report("spawn → bindable, "+kind, took[kind])
		report("  of it until init runs, "+kind, init[kind])
		report("  processor time, "+kind, cpu[kind])
	}
	a, err := spawners[kinds[0]].Driver.(runtime.Accelerated).Acceleration(t.Context(), release)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("RESULT spawn → bindable by %s, cold boot / from the saved VM, p50: %.1f\n", a.Kind,
		float64(percentile(took[kinds[0]], 50))/float64(percentile(took[kinds[1]], 50)))
}
