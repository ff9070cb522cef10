package torture

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/platform/watchdog"
	"github.com/sluice-platform/sluice/test/fleettest"
)

// hung is for how long a thread may wait in the kernel, not to be interrupted, while no store is
// stalled. Far more than a busy host takes; what waits for itself waits for ever.
const hung = 90 * time.Second

// watch looks at all threads of a fleet's VMs for those that wait and don't come back.
type watch struct {
	t      *testing.T
	parent string // cgroup of the VMs
	end    func()

	mu      sync.Mutex
	stalled string                    // the VM whose store is
	seen    map[int]*watchdog.Threads // by process
	since   map[int]time.Time         // by thread
	most    time.Duration
}

func startWatch(t *testing.T, f *fleettest.Fleet) *watch {
	w := &watch{t: t, parent: f.CgroupParent("w1") + "/", seen: map[int]*watchdog.Threads{},
		since: map[int]time.Time{}}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			w.look()
			select {
			case <-ctx.Done():
			case <-time.After(2 * time.Second):
			}
		}
	})
	w.end = func() { cancel(); wg.Wait() }
	t.Cleanup(w.end)
	return w
}

func (w *watch) stop() { w.end() }

// forgive forgives what waits in a VM whose store is stalled on purpose; in "" nothing does.
func (w *watch) forgive(vm string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stalled = vm
}

func (w *watch) longest() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.most
}

func (w *watch) look() {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now, still := time.Now(), map[int]time.Time{}
	for _, dir := range dirs {
		group, err := os.ReadFile(filepath.Join(dir, "cgroup"))
		if err != nil || !strings.Contains(string(group), w.parent) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if w.seen[pid] == nil {
			w.seen[pid] = watchdog.NewThreads(pid)
		}
		look, err := w.seen[pid].Observe()
		if err != nil || w.stalled != "" && strings.Contains(string(group), "/"+w.stalled+"/") {
			continue // it has ended, or is forgiven and begins anew
		}
		for _, thread := range look.Stuck {
			still[thread.TID] = w.waits(dir, thread, now)
		}
	}
	w.since = still
}

// waits returns since when a thread waits, and fails the test once if that is for ever.
func (w *watch) waits(dir string, thread watchdog.Thread, now time.Time) time.Time {
	since, known := w.since[thread.TID]
	if !known {
		return now
	}
	before := w.most
	w.most = max(w.most, now.Sub(since))
	if w.most >= hung && before < hung {
		cmd, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		stack, _ := os.ReadFile(filepath.Join(dir, "task", strconv.Itoa(thread.TID), "stack"))
		w.t.Errorf("thread %d of %q hangs since %v\n%s", thread.TID, cmd, since, stack)
	}
	return since
}
