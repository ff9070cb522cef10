package onhost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/memcg"
)

// needV2 leaves a test out on a host with cgroup v1; TestOnV2Alone runs it in a VM that has none.
func needV2(t *testing.T) Layout {
	t.Helper()
	l, err := HostLayout()
	if err != nil {
		t.Fatal(err)
	}
	if len(l.V1) > 0 {
		t.Skip("this host has cgroup v1")
	}
	return l
}

// newCgroups makes a VM's cgroups, which go with the test.
func newCgroups(t *testing.T, l Layout, parent, id string) Cgroups {
	t.Helper()
	c := Cgroups{Layout: l, Parent: parent, ID: id}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := c.KillAndWait(ctx); err != nil {
			t.Error(err)
		}
		if err := c.Remove(ctx); err != nil {
			t.Error(err)
		}
	})
	if err := c.Create(); err != nil {
		t.Fatal(err)
	}
	return c
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || strings.TrimSpace(string(got)) != want {
		t.Errorf("%s: %q, want %q (%v)", path, got, want, err)
	}
}

// TestV2Limits has the kernel take each limit, and the lifting of each.
func TestV2Limits(t *testing.T) {
	c := newCgroups(t, needV2(t), "sluice-test/limits", "0123abcd")
	dir := c.Outer(c.Unified)
	if err := c.SetLimits(fleet.Resources{CPUMillis: 1500, MemoryMiB: 64}); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"cpu.max": "150000 100000",
		"memory.max":  fmt.Sprint(64<<20 + memorySlack),
		"memory.high": "max",
		"pids.max":    fmt.Sprint(fleet.LeastProcesses + guestapi.PlatformProcesses)} {
		wantFile(t, filepath.Join(dir, file), want)
	}
	if err := c.SetLimits(fleet.Resources{}); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"cpu.max": "max 100000", "memory.max": "max"} {
		wantFile(t, filepath.Join(dir, file), want)
	}
}

// TestV2LowerBoundKillsNobody lowers a bound below what is in use: refused, and the process lives
// and isn't slowed down. What is page cache alone is taken back.
func TestV2LowerBoundKillsNobody(t *testing.T) {
	c := newCgroups(t, needV2(t), "sluice-test/lower", "0123abcd")
	if err := c.SetLimits(fleet.Resources{MemoryMiB: 256}); err != nil {
		t.Fatal(err)
	}
	p := play(t, c.Inner(c.Unified), "allocate 128")
	if p.said != "ready" {
		t.Fatal(p.said)
	}
	err := c.SetLimits(fleet.Resources{MemoryMiB: 32})
	if !errs.Is(err, errs.Conflict) || errs.RemedyOf(err) == "" {
		t.Errorf("a bound below what is in use: %v", err)
	}
	if err := p.cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the process: %v", err)
	}
	if n, err := (memcg.Cgroup{Dir: c.Outer(c.Unified), V2: true}).OOMKills(); n != 0 ||
		err != nil {
		t.Errorf("%d processes were killed for the new bound (%v)", n, err)
	}
	wantFile(t, filepath.Join(c.Outer(c.Unified), "memory.high"), "max")
	wantFile(t, filepath.Join(c.Outer(c.Unified), "memory.max"), fmt.Sprint(256<<20+memorySlack))
}

// TestV2LowerBoundTakesCache lowers a bound below what is in use, most of which is page cache: the
// kernel takes that back.
func TestV2LowerBoundTakesCache(t *testing.T) {
	dir := makeCgroup(t, needV2(t), "cached")
	readCache(t, dir, 100)
	if err := (memcg.Cgroup{Dir: dir, V2: true}).Limit(32 << 20); err != nil {
		t.Error(err)
	}
	wantFile(t, filepath.Join(dir, "memory.max"), fmt.Sprint(32<<20))
	wantFile(t, filepath.Join(dir, "memory.high"), "max")
}

// readCache has a process of the cgroup read a file's device, which puts that many MiB into the
// page cache.
func readCache(t *testing.T, dir string, mib int64) {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "cached")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(mib << 20); err != nil {
		t.Fatal(err)
	}
	device := attachLoop(t, file)
	p := play(t, dir, "read "+device)
	if p.said != "ready" {
		t.Fatal(p.said)
	}
	p.end()
	if got := cachedIn(t, dir); got < mib<<20/2 {
		t.Fatalf("%d bytes are cached of %d MiB read", got, mib)
	}
}

// attachLoop returns a loop device over a file, until the test ends.
func attachLoop(t *testing.T, file *os.File) string {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		t.Fatal(err)
	}
	device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetInt(int(device.Fd()), unix.LOOP_SET_FD, int(file.Fd())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.IoctlSetInt(int(device.Fd()), unix.LOOP_CLR_FD, 0)
		device.Close()
	})
	return device.Name()
}

func cachedIn(t *testing.T, dir string) int64 {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "memory.stat"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "file "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no file in memory.stat: %s", text)
	return 0
}

// TestV2PlatformKeepsItsMemory has the kernel reclaim on the whole host all that it may: what a
// VM's platform was promised it keeps, while what isn't promised goes.
func TestV2PlatformKeepsItsMemory(t *testing.T) {
	l := needV2(t)
	c := newCgroups(t, l, "sluice-test/min", "0123abcd")
	other := newCgroups(t, l, "sluice-test/min", "4567cdef")
	for _, each := range []Cgroups{c, other} {
		if err := each.SetLimits(fleet.Resources{MemoryMiB: 1024}); err != nil {
			t.Fatal(err)
		}
	}
	platform, outside := filepath.Join(c.Inner(l.Unified), "init"), makeCgroup(t, l, "outside")
	if err := errors.Join(Delegate(filepath.Dir(platform)), os.Mkdir(platform, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := (memcg.Cgroup{Dir: platform, V2: true}).Protect(guestapi.PlatformMemory); err != nil {
		t.Fatal(err)
	}
	readCache(t, platform, 64)
	readCache(t, outside, 64)
	reclaim(t, l, "800M")
	if kept := cachedIn(t, platform); kept < 60<<20 {
		t.Errorf("the platform kept %d bytes of 64 MiB", kept)
	}
	if kept := cachedIn(t, outside); kept > 16<<20 {
		t.Errorf("what isn't protected kept %d bytes of 64 MiB: this test sees no reclaim", kept)
	}
	for _, dir := range []string{"sluice-test/min", "sluice-test"} {
		wantFile(t, filepath.Join(l.Unified, dir, "memory.min"),
			fmt.Sprint(2*guestapi.PlatformMemory))
	}
	if err := other.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"sluice-test/min", "sluice-test"} {
		wantFile(t, filepath.Join(l.Unified, dir, "memory.min"),
			fmt.Sprint(guestapi.PlatformMemory))
	}
}

// reclaim has the kernel take back so much from all cgroups, as if there were need; it says EAGAIN
// when there is no more.
func reclaim(t *testing.T, l Layout, bytes string) {
	t.Helper()
	fd, err := unix.Open(filepath.Join(l.Unified, "memory.reclaim"), unix.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if _, err := unix.Write(fd, []byte(bytes)); err != nil && !errors.Is(err, unix.EAGAIN) {
		t.Fatal(err)
	}
}

// TestV2OthersCgroupsKeepWhatTheyPromise leaves the memory.min of a cgroup alone that no worker has
// made.
func TestV2OthersCgroupsKeepWhatTheyPromise(t *testing.T) {
	l := needV2(t)
	dir := makeCgroup(t, l, "others.slice")
	if err := WriteFile(filepath.Join(dir, "memory.min"), "4096"); err != nil {
		t.Fatal(err)
	}
	c := newCgroups(t, l, "others.slice/w1", "0123abcd")
	if err := c.SetLimits(fleet.Resources{MemoryMiB: 64}); err != nil {
		t.Fatal(err)
	}
	wantFile(t, filepath.Join(dir, "memory.min"), "4096")
	wantFile(t, filepath.Join(dir, "w1/memory.min"), fmt.Sprint(guestapi.PlatformMemory))
}

// makeCgroup makes one with all controllers, as systemd does, and removes it and those in it with
// the test.
func makeCgroup(t *testing.T, l Layout, path string) string {
	t.Helper()
	dir := l.Unified
	for part := range strings.SplitSeq(path, "/") {
		if err := Delegate(dir); err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(dir, part)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := Poll(ctx, func() (bool, error) {
			return removeTree(dir) == nil,
				nil
		}); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestV2DelegatedUnit runs workers in cgroups that can't have VMs below them before the worker is
// out of the way.
func TestV2DelegatedUnit(t *testing.T) {
	l := needV2(t)
	const unit = "system.slice/worker.service"
	t.Run("not delegated", func(t *testing.T) {
		dir := makeCgroup(t, l, unit)
		p := play(t, dir, "create "+unit)
		if !strings.HasPrefix(p.said, string(errs.Conflict)) || !strings.Contains(p.said, dir) ||
			!strings.Contains(p.said, "Delegate=yes") {
			t.Errorf("the worker says %q", p.said)
		}
	})
	t.Run("delegated", func(t *testing.T) {
		dir := makeCgroup(t, l, unit)
		mark(t, dir, "trusted.delegate")
		// systemd's to decide
		if err := WriteFile(filepath.Join(filepath.Dir(dir), "cgroup.subtree_control"),
			"-cpuset"); err != nil {
			t.Fatal(err)
		}
		above, err := os.ReadFile(filepath.Join(filepath.Dir(dir), "cgroup.subtree_control"))
		if err != nil {
			t.Fatal(err)
		}
		p := play(t, dir, "create "+unit)
		if p.said != "ready" {
			t.Fatalf("the worker says %q", p.said)
		}
		wantFile(t, filepath.Join(dir, workerCgroup, "cgroup.procs"), fmt.Sprint(p.cmd.Process.Pid))
		wantFile(t, filepath.Join(dir, "cgroup.procs"), "")
		for _, controller := range limiting() {
			if have, err := controllersOf(filepath.Join(dir, "0123abcd")); err != nil ||
				!slices.Contains(have, controller) {
				t.Errorf("controllers of the VM: %s, %v", have, err)
			}
		}
		wantFile(t, filepath.Join(filepath.Dir(dir), "cgroup.subtree_control"),
			strings.TrimSpace(string(above)))
	})
	t.Run("with others", func(t *testing.T) {
		dir := makeCgroup(t, l, unit)
		mark(t, dir, "user.delegate")
		other := play(t, dir, "allocate 1")
		p := play(t, dir, "create "+unit)
		if !strings.HasPrefix(p.said, string(errs.Conflict)) ||
			!strings.Contains(p.said, fmt.Sprint(other.cmd.Process.Pid)) {
			t.Errorf("the worker says %q", p.said)
		}
	})
	t.Run("a delegation without memory", func(t *testing.T) {
		makeCgroup(t, l, "system.slice")
		if err := WriteFile(filepath.Join(l.Unified, "system.slice/cgroup.subtree_control"),
			"-memory"); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(l.Unified, unit)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		mark(t, dir, "trusted.delegate")
		p := play(t, dir, "create "+unit)
		if !strings.HasPrefix(p.said, string(errs.Unsupported)) ||
			!strings.Contains(p.said, "memory") || !strings.Contains(p.said, "Delegate=yes") {
			t.Errorf("the worker says %q", p.said)
		}
	})
}

func mark(t *testing.T, dir, name string) {
	t.Helper()
	if err := unix.Setxattr(dir, name, []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
}

// TestV2InAContainer runs a worker in a cgroup namespace, of whose root it is a process: as a
// container has it.
func TestV2InAContainer(t *testing.T) {
	l := needV2(t)
	dir := makeCgroup(t, l, "container")
	group, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"=container sluice-w1")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd()),
		Cloneflags: unix.CLONE_NEWCGROUP | unix.CLONE_NEWNS}
	p := begin(t, cmd)
	if p.said != "ready" {
		t.Fatalf("the worker says %q", p.said)
	}
	wantFile(t, filepath.Join(dir, workerCgroup, "cgroup.procs"), fmt.Sprint(cmd.Process.Pid))
	if _, err := os.Stat(filepath.Join(dir, "sluice-w1/0123abcd/memory.max")); err != nil {
		t.Error(err)
	}
}

// TestV2FrozenIsKilled freezes a VM, and kills it as it is.
func TestV2FrozenIsKilled(t *testing.T) {
	c := newCgroups(t, needV2(t), "sluice-test/frozen", "0123abcd")
	p := play(t, c.Inner(c.Unified), "allocate 1")
	if p.said != "ready" {
		t.Fatal(p.said)
	}
	if err := c.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	if frozen, err := c.event("frozen"); !frozen || err != nil {
		t.Errorf("frozen: %v, %v", frozen, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.KillAndWait(ctx); err != nil {
		t.Fatal(err)
	}
}
