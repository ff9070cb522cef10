package onhost

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/fuseabort"
	"github.com/sluice-platform/sluice/internal/x/memcg"
)

const (
	cpuPeriodMicros = 100_000
	// bytes for memory charged to neither, such as the remains of a removed cgroup, and for a
	// process beside the VM, which has some 10 MiB of its own
	memorySlack = 64 << 20
)

// SetLimits bounds the whole VM, platform included. 0 means no bound.
func (c Cgroups) SetLimits(l fleet.Resources) error {
	if l.CPUMillis < 0 || l.MemoryMiB < 0 {
		return errs.New(errs.Invalid, "limits can't be negative: %d millicores, %d MiB",
			l.CPUMillis, l.MemoryMiB)
	}
	if err := c.setCPU(l.CPUMillis); err != nil {
		return errs.Wrap(errs.Internal, err, "limit CPU of VM %s", c.ID)
	}
	if err := c.setMemory(l.MemoryMiB << 20); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return errs.Wrap(errs.Conflict, err, "VM %s uses more than %d MiB now",
				c.ID, l.MemoryMiB).
				WithRemedy("choose a higher bound")
		}
		return errs.Wrap(errs.Internal, err, "limit memory of VM %s", c.ID)
	}
	if err := c.protectPlatform(); err != nil {
		return errs.Wrap(errs.Internal, err, "protect memory of VM %s", c.ID)
	}
	return c.setProcesses(l.Processes() + guestapi.PlatformProcesses)
}

func (c Cgroups) setCPU(millis int64) error {
	quota := max(millis*cpuPeriodMicros/1000, 1000) // the kernel's least is 1 ms
	if v1 := c.V1For("cpu"); v1 != "" {
		if millis == 0 {
			quota = -1
		}
		if err := WriteFile(filepath.Join(c.Outer(v1), "cpu.cfs_period_us"),
			strconv.Itoa(cpuPeriodMicros)); err != nil {
			return err
		}
		return WriteFile(filepath.Join(c.Outer(v1), "cpu.cfs_quota_us"),
			strconv.FormatInt(quota, 10))
	}
	value := fmt.Sprintf("%d %d", quota, cpuPeriodMicros)
	if millis == 0 {
		value = fmt.Sprintf("max %d", cpuPeriodMicros)
	}
	return WriteFile(filepath.Join(c.Outer(c.Unified), "cpu.max"), value)
}

// setMemory bounds the memory of the whole VM. Inside, the platform and the machine have bounds of
// their own, whose sum must stay below this one. Otherwise the platform would have to reclaim pages
// that the machine has dirtied, and would wait for itself to write them out.
func (c Cgroups) setMemory(bytes int64) error {
	if bytes > 0 {
		bytes += memorySlack
	}
	if v1 := c.V1For("memory"); v1 != "" {
		return memcg.Cgroup{Dir: c.Outer(v1)}.Limit(bytes)
	}
	return memcg.Cgroup{Dir: c.Outer(c.Unified), V2: true}.Limit(bytes)
}

func (c Cgroups) setProcesses(most int64) error {
	mount := c.V1For("pids")
	if mount == "" {
		mount = c.Unified
	}
	if err := WriteFile(filepath.Join(c.Outer(mount), "pids.max"),
		strconv.FormatInt(most, 10)); err != nil {
		return errs.Wrap(errs.Internal, err, "limit processes of VM %s", c.ID)
	}
	return nil
}

// vmDevices are the devices that every VM may open.
func vmDevices() []string {
	return []string{
		// null zero full random urandom
		"c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm",
		"c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm", // tty ptmx pts
	}
}

// allowDevices bars a v1 cgroup from all other devices. v2 has no such file: there it is but for
// what a VM is besides, such as a user namespace, that it has no nodes of other devices.
func allowDevices(dir string, more []string) error {
	if err := WriteFile(filepath.Join(dir, "devices.deny"), "a"); err != nil {
		return err
	}
	for _, device := range append(vmDevices(), more...) {
		if err := WriteFile(filepath.Join(dir, "devices.allow"), device); err != nil {
			return fmt.Errorf("allow device %s: %w", device, err)
		}
	}
	return nil
}

const (
	// killAgain is the interval between kills of a VM that hasn't died, for processes that it has
	// forked or frozen since.
	killAgain = 200 * time.Millisecond
	// killStuck is after how long a killed VM is assumed to wait for a disk that it serves itself.
	killStuck = time.Second
)

// KillAndWait kills until the VM's cgroup is empty. A process in an uninterruptible wait for the
// VM's own disk dies too, as soon as the disk's server has: the kernel then fails what it waits
// for. A server that waits for its own disk is freed by giving its FUSE connection up.
func (c Cgroups) KillAndWait(ctx context.Context) error {
	var last time.Time
	first := time.Now()
	err := Poll(ctx, func() (bool, error) {
		left, err := c.Populated()
		if !left || err != nil {
			return !left, err
		}
		if time.Since(first) >= killStuck {
			first = time.Now()
			return false, c.abortDisks()
		}
		if time.Since(last) >= killAgain {
			last = time.Now()
			return false, c.KillAll()
		}
		return false, nil
	})
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "kill VM %s (processes left: %v)", c.ID, c.PIDs()).
			WithRemedy("see /proc/<pid>/stack of these processes on the worker, and try again")
	}
	return nil
}

// abortDisks aborts the FUSE connections of the VM's remaining processes. It finds them by /proc:
// a process whose main thread is a zombie is not in cgroup.procs.
func (c Cgroups) abortDisks() error {
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return errs.Wrap(errs.Internal, err, "list processes")
	}
	own := "/" + filepath.Join(c.Parent, c.ID)
	var failed error
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || !strings.Contains(strings.ReplaceAll(string(text), "\n", "/"), own+"/") {
			continue // gone meanwhile, or not the VM's
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err == nil {
			_, err = fuseabort.Process(pid)
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// Freeze stops every process of the VM. A process that waits uninterruptibly, for a disk whose
// server is stopped already, can't be frozen before it comes back, and doesn't run either: it
// counts as stopped.
func (c Cgroups) Freeze(ctx context.Context) error {
	file := filepath.Join(c.Outer(c.Unified), "cgroup.freeze")
	if err := WriteFile(file, "1"); err != nil {
		return errs.Wrap(errs.NotFound, err, "freeze VM %s", c.ID)
	}
	tries := 0
	err := Poll(ctx, func() (bool, error) {
		frozen, err := c.event("frozen")
		tries++
		return frozen || tries > 20 && c.noneRuns(), err
	})
	if err != nil {
		return errors.Join(errs.Wrap(errs.Unavailable, err, "freeze VM %s", c.ID),
			optional(WriteFile(file, "0")))
	}
	return nil
}

func (c Cgroups) Thaw() error {
	if err := WriteFile(filepath.Join(c.Outer(c.Unified), "cgroup.freeze"), "0"); err != nil {
		return errs.Wrap(errs.NotFound, err, "thaw VM %s", c.ID)
	}
	return nil
}

// noneRuns reports whether no thread in the VM runs or could run. Freezing wakes threads in an
// interruptible sleep. So a thread that sleeps now is frozen, or in an uninterruptible wait.
func (c Cgroups) noneRuns() bool {
	for _, pid := range c.PIDs() {
		tasks, err := os.ReadDir(filepath.Join("/proc", pid, "task"))
		if err != nil {
			continue // gone meanwhile
		}
		for _, t := range tasks {
			stat, err := os.ReadFile(filepath.Join("/proc", pid, "task", t.Name(), "stat"))
			if err == nil && strings.HasPrefix(
				string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " R") {
				return false
			}
		}
	}
	return true
}

// KillAll sends SIGKILL to everything in the VM's cgroup. What the platform froze by a v1 freezer
// must be thawed, or the signal would wait for ever.
func (c Cgroups) KillAll() error {
	err := WriteFile(filepath.Join(c.Outer(c.Unified), "cgroup.kill"), "1")
	if errors.Is(err, fs.ErrNotExist) { // a kernel before 5.14, if the VM isn't gone
		err = c.killEach()
	}
	err = optional(err)
	freezer := c.V1For("freezer")
	if freezer == "" {
		return err
	}
	walkErr := filepath.WalkDir(c.Outer(freezer),
		func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.IsDir() {
				return optional(err)
			}
			return optional(WriteFile(filepath.Join(path, "freezer.state"), "THAWED"))
		})
	return errors.Join(err, walkErr)
}

// killEach sends SIGKILL to each process of the VM. The end of a namespace's init ends all in it.
func (c Cgroups) killEach() error {
	for _, text := range c.PIDs() {
		pid, err := strconv.Atoi(text)
		if err != nil || pid <= 0 { // 0 is one outside of what this process sees
			continue
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d: %w", pid, err)
		}
	}
	return nil
}

// optional returns nil for the error that something doesn't exist.
func optional(err error) error {
	gone := []error{fs.ErrNotExist, unix.ENODEV, unix.EOPNOTSUPP}
	if slices.ContainsFunc(gone, func(e error) bool { return errors.Is(err, e) }) {
		return nil
	}
	return err
}
