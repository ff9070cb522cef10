package devfleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Process identifies a process that we started, also if its pid has been reused since.
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot, field 22 of /proc/<pid>/stat
}

// Alive reports whether this very process still runs; a zombie doesn't.
func (p Process) Alive() bool {
	start, state, err := processStat(p.PID)
	return err == nil && start == p.Start && state != 'Z' && state != 'X'
}

// Signal sends a signal to this very process; to one that is gone it does nothing.
func (p Process) Signal(sig syscall.Signal) error {
	if p.PID <= 1 || !p.Alive() {
		return nil
	}
	if err := syscall.Kill(p.PID, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	return nil
}

// stop sends SIGTERM and, after grace, SIGKILL. It returns when the process is gone.
func (p Process) stop(ctx context.Context, grace time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if p.waitGone(ctx, grace) {
		return nil
	}
	return p.kill(ctx)
}

func (p Process) kill(ctx context.Context) error {
	if err := p.Signal(syscall.SIGCONT); err != nil {
		return err
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	if !p.waitGone(ctx, 10*time.Second) {
		return fmt.Errorf("process %d survives SIGKILL", p.PID)
	}
	return nil
}

func (p Process) waitGone(ctx context.Context, limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for p.Alive() {
		if time.Now().After(deadline) || ctx.Err() != nil {
			return false
		}
		reapIfChild(p.PID)
		time.Sleep(5 * time.Millisecond)
	}
	return true
}

// reapIfChild collects the exit of a process that this process started itself, as tests do.
func reapIfChild(pid int) {
	var status syscall.WaitStatus
	// Any error means that it isn't our child, or not dead: both are fine.
	_, _ = syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
}

func processStat(pid int) (start uint64, state byte, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	i := bytes.LastIndexByte(data, ')') // the command name may contain anything
	fields := strings.Fields(string(data[i+1:]))
	if i < 0 || len(fields) < 20 {
		return 0, 0, fmt.Errorf("unexpected format of /proc/%d/stat", pid)
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, fields[0][0], err
}

// command returns a daemon to start, in its own session, that logs to a file.
type command struct {
	args  []string
	env   []string // on top of ours
	apart []string // names of variables of ours that it doesn't get
	log   string
	netns string // "" for ours
}

func (c command) start() (Process, error) {
	if err := os.MkdirAll(filepath.Dir(c.log), 0o755); err != nil {
		return Process{}, fmt.Errorf("create log directory: %w", err)
	}
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return Process{}, fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	// A daemon outlives whoever starts it: its life is not bound to any context.
	cmd := exec.CommandContext(context.Background(), c.args[0], c.args[1:]...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(c.apart, name)
	}), c.env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if c.netns == "" {
		err = cmd.Start()
	} else {
		err = inNetns(c.netns, cmd.Start)
	}
	if err != nil {
		return Process{}, fmt.Errorf("start %s: %w", strings.Join(c.args[:2], " "), err)
	}
	start, _, err := processStat(cmd.Process.Pid)
	if err != nil {
		return Process{}, fmt.Errorf("start %s: it ended at once; see %s: %w",
			c.args[1], c.log, err)
	}
	return Process{PID: cmd.Process.Pid, Start: start}, nil
}

// inNetns runs fn on a thread that is in the named network namespace. A child that fn starts
// inherits it.
func inNetns(name string, fn func() error) error {
	target, err := netns.GetFromName(name)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", name, err)
	}
	defer target.Close()
	runtime.LockOSThread()
	here, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer here.Close()
	if err := netns.Set(target); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace %s: %w", name, err)
	}
	fnErr := fn()
	if err := netns.Set(here); err != nil {
		// The thread stays locked: it ends with its goroutine and is never used by another one.
		return errors.Join(fnErr, fmt.Errorf("return from network namespace %s: %w", name, err))
	}
	runtime.UnlockOSThread()
	return fnErr
}

// cgroupDirs lists the directories of a cgroup in every hierarchy that has it, the deepest first.
func cgroupDirs(name string) ([]string, error) {
	roots, err := filepath.Glob("/sys/fs/cgroup/*/" + name)
	if err != nil {
		return nil, err
	}
	roots = append(roots, "/sys/fs/cgroup/"+name)
	var dirs []string
	for _, root := range roots {
		_ = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			// an error means that it vanished while we looked: what we want
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
	}
	slices.SortFunc(dirs, func(a, b string) int { return len(b) - len(a) })
	return dirs, nil
}

// killCgroups kills every process in a cgroup and those below it.
func killCgroups(name string) error {
	dirs, err := cgroupDirs(name)
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if err := killProcs(filepath.Join(dir, "cgroup.procs")); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroups kills what is left in a cgroup and removes it. The kernel needs a moment to let go.
func removeCgroups(ctx context.Context, name string) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		if err := killCgroups(name); err != nil {
			return err
		}
		dirs, err := cgroupDirs(name)
		if err != nil || len(dirs) == 0 {
			return err
		}
		var last error
		for _, dir := range dirs {
			if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				last = err
			}
		}
		if last != nil && (time.Now().After(deadline) || ctx.Err() != nil) {
			return fmt.Errorf("remove cgroup %s: %w", name, last)
		}
		if last == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func killProcs(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil // gone
	}
	for _, f := range strings.Fields(string(data)) {
		pid, err := strconv.Atoi(f)
		if err != nil || pid <= 1 {
			continue
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d: %w", pid, err)
		}
	}
	return nil
}
