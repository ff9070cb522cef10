package qemu

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/runtime/runtimetest"
)

// cacheEnv names the directory that all drivers of one run of this test share, so that a kernel is
// tried, a release's image made and a VM saved but once.
const cacheEnv = "SLUICE_QEMUTEST_CACHE"

func TestMain(m *testing.M) {
	Child()
	runtimetest.Worker(newDriver)
	cache, err := os.MkdirTemp("", "qemu-cache-")
	if err == nil {
		err = os.Setenv(cacheEnv, cache)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(cache)
	os.Exit(code)
}

func newDriver(dir string) (runtime.Driver, error) {
	return New(Config{
		Dir: dir, CacheDir: os.Getenv(cacheEnv), CgroupParent: "sluice-test/" + filepath.Base(dir),
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
}

// release is the suite's, with the guest's kernel.
func release(t testing.TB) string {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	guests := filepath.Join(root, "bin/guests")
	cmd := exec.Command(filepath.Join(root, "scripts/build-guest.sh"), guests)
	cmd.Stderr = os.Stderr
	id, err := cmd.Output()
	if err != nil {
		t.Fatalf("build guest: %v", err)
	}
	dir := runtimetest.Release(t)
	if exec.Command("cp", "-rl", filepath.Join(guests, strings.TrimSpace(string(id))),
		filepath.Join(dir, "boot")).Run() != nil {
		if out, err := exec.Command("cp", "-r",
			filepath.Join(guests, strings.TrimSpace(string(id))),
			filepath.Join(dir, "boot")).CombinedOutput(); err != nil {
			t.Fatalf("add kernel: %v\n%s", err, out)
		}
	}
	return dir
}

func TestConformance(t *testing.T) {
	runtimetest.Run(t, runtimetest.Harness{
		New: newDriver, Release: release(t), OwnKernel: true, CPUTime: cpuTime,
		Pace: runtimetest.Pace{Step: 4 * time.Minute, Start: time.Second, Moments: 4, Many: 2,
			KillRounds: 6},
	})
}

// cpuTime is what a VM's process has used.
func cpuTime(machine runtime.VM) (time.Duration, error) {
	v := machine.(*vm)
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(v.Record.PID), "stat"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks int
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
