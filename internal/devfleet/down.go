package devfleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/runtime/onhost"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/keyring"
)

// removeTimeout bounds the removal of one VM.
const removeTimeout = 20 * time.Second

// Driver is a runtime that unlocks its directory when it is closed.
type Driver interface {
	runtime.Driver
	io.Closer
}

// Drivers opens the runtime of one worker, for removing the VMs that it left.
type Drivers func(runtime, vmDir, cgroupParent string) (Driver, error)

// VMDir returns the directory of a worker's VMs of a runtime.
func (l Layout) VMDir(worker, runtime string) string {
	return filepath.Join(l.workerDir(worker), runtime)
}

// runtimes are all runtimes of which a worker may have VMs.
func runtimes() []string { return []string{"sandbox", "qemu"} }

// Down stops the fleet and removes everything that it has made on this machine, its directory
// included. It finds these things by name, not by records, so it works after a crash too. It goes
// on after errors, and returns all of them.
func (f *Fleet) Down(ctx context.Context, drivers Drivers, progress func(string)) error {
	if _, err := os.Stat(f.Dir); err != nil && len(f.leftWorkers()) == 0 {
		return errs.New(errs.NotFound, "there is no fleet in %s", f.Dir).
			WithRemedy("name the directory that `sluice dev up` was given")
	}
	unlock, err := f.lock()
	if err != nil {
		return err
	}
	defer unlock()
	var failed []error
	workers := f.leftWorkers()
	failed = append(failed, f.stopDaemons(ctx))
	progress("daemons stopped")
	for _, w := range workers {
		for _, r := range runtimes() {
			failed = append(failed, f.removeVMs(ctx, w, r, drivers))
		}
		failed = append(failed, removeCgroups(ctx, f.CgroupParent(w)), f.removeHost(w),
			keyring.New(f.workerDir(w)).Forget())
		progress("worker " + w + " removed")
	}
	failed = append(failed, f.removeBridge())
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("remove fleet in %s: %w", f.Dir, err)
	}
	if err := os.RemoveAll(f.Dir); err != nil {
		return fmt.Errorf("remove fleet's directory: %w", err)
	}
	return os.Remove(filepath.Join(filepath.Dir(f.Dir), "."+filepath.Base(f.Dir)+".lock"))
}

func (f *Fleet) removeVMs(ctx context.Context, worker, runtime string, drivers Drivers) error {
	if _, err := os.Stat(f.VMDir(worker, runtime)); err != nil {
		return nil // it never started one
	}
	driver, err := drivers(runtime, f.VMDir(worker, runtime), f.CgroupParent(worker))
	if err != nil {
		return fmt.Errorf("open runtime of worker %s: %w", worker, err)
	}
	defer driver.Close()
	vms, err := driver.Adopt(ctx)
	if err != nil {
		return fmt.Errorf("find VMs of worker %s: %w", worker, err)
	}
	var g errgroup.Group // one that can't be removed must not keep the others
	g.SetLimit(4)
	for _, vm := range vms {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, onhost.Patient(removeTimeout))
			defer cancel()
			return vm.Remove(ctx)
		})
	}
	return g.Wait()
}

// leftWorkers returns every worker that has left a record, a directory, a namespace or a link.
func (f *Fleet) leftWorkers() []string {
	seen := map[string]bool{}
	add := func(name string) {
		if name != "" {
			seen[name] = true
		}
	}
	if s, err := f.load(); err == nil {
		for _, h := range s.Workers {
			add(h.Name)
		}
	}
	dirs, _ := filepath.Glob(f.path("workers", "*")) // the pattern is well-formed
	for _, dir := range dirs {
		add(filepath.Base(dir))
	}
	spaces, _ := filepath.Glob("/run/netns/" + f.Netns("*"))
	for _, ns := range spaces {
		add(strings.TrimPrefix(filepath.Base(ns), f.Netns("")))
	}
	if links, err := netlink.LinkList(); err == nil {
		for _, link := range links {
			if name, ok := strings.CutPrefix(link.Attrs().Name, f.Link("")); ok {
				add(name)
			}
		}
	}
	names := make([]string, 0, len(seen))
	for name := range seen {
		names = append(names, name)
	}
	return names
}

// stopDaemons stops every process with a directory of this fleet among its arguments. The S3 server
// is stopped after the processes that use it.
func (f *Fleet) stopDaemons(ctx context.Context) error {
	processes, err := f.daemons()
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, p := range processes.users {
		g.Go(func() error { return p.stop(gctx, 5*time.Second) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, p := range processes.stores {
		if err := p.stop(ctx, 5*time.Second); err != nil {
			return err
		}
	}
	return nil
}

type daemonSet struct{ users, stores []Process }

func (f *Fleet) daemons() (daemonSet, error) {
	var set daemonSet
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return set, fmt.Errorf("list processes: %w", err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil {
			continue // it ended meanwhile
		}
		start, _, err := processStat(pid)
		if err != nil {
			continue
		}
		p := Process{PID: pid, Start: start}
		switch f.roleOf(bytes.Split(bytes.TrimRight(cmdline, "\x00"), []byte{0})) {
		case "user":
			set.users = append(set.users, p)
		case "store":
			set.stores = append(set.stores, p)
		}
	}
	return set, nil
}

// roleOf returns which of this fleet's daemons a process is, by its arguments; "": none.
func (f *Fleet) roleOf(args [][]byte) string {
	for i, arg := range args {
		next := ""
		if i+1 < len(args) {
			next = string(args[i+1])
		}
		switch {
		case string(arg) == "--data" &&
			(next == f.serverDir() || filepath.Dir(next) == f.path("workers")):
			return "user"
		case string(arg) == "posix" && next == f.storeDir():
			return "store"
		}
	}
	return ""
}

// SignalServer sends a signal to the server, for tests of what it does when it is stopped or
// killed.
func (f *Fleet) SignalServer(sig syscall.Signal) error {
	return f.withState(func(s *State) error { return s.Server.Signal(sig) })
}
