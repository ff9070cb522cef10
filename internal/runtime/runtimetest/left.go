package runtimetest

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// stalledDisk is in the path of the file that the guest's stalled disk is on, as the host's loop
// devices show it.
const stalledDisk = "/sluice-stalled"

// checkNothingLeft fails the test if, after a moment, anything of this env's VMs is left on the
// host. Only what bears the names of this env counts: other tests run beside it.
func (e *env) checkNothingLeft(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		left := leftovers(e.dir, e.ids)
		if len(left) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			e.t.Errorf("left on the host:\n%s", strings.Join(left, "\n"))
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func leftovers(dir string, ids []fleet.VMID) []string {
	name := filepath.Base(dir)
	left := slices.Concat(processesOf(name), linesWith("mount", "/proc/self/mountinfo", name),
		loopsOf(name), cgroupsOf(name))
	links, _ := net.Interfaces()
	for _, l := range links {
		if slices.ContainsFunc(ids, func(id fleet.VMID) bool {
			return strings.Contains(l.Name,
				string(id))
		}) {
			left = append(left, "link "+l.Name)
		}
	}
	entries, _ := os.ReadDir(dir)
	for _, f := range entries {
		if f.IsDir() {
			left = append(left, "directory "+filepath.Join(dir, f.Name()))
		}
	}
	return left
}

// processesOf lists processes with name in their command line or cgroups.
func processesOf(name string) []string {
	var left []string
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		if filepath.Base(p) == fmt.Sprint(os.Getpid()) || isZombie(p) {
			continue
		}
		for _, file := range []string{"cmdline", "cgroup"} {
			if b, _ := os.ReadFile(filepath.Join(p, file)); strings.Contains(string(b), name) {
				comm, _ := os.ReadFile(filepath.Join(p, "comm"))
				left = append(left, fmt.Sprintf("process %s (%s)", filepath.Base(p),
					strings.TrimSpace(string(comm))))
				break
			}
		}
	}
	return left
}

// isZombie is for processes that have ended and wait for their parent: where a worker was killed,
// the host's init.
func isZombie(proc string) bool {
	b, _ := os.ReadFile(filepath.Join(proc, "stat"))
	return strings.Contains(string(b), ") Z ")
}

func linesWith(what, file, name string) []string {
	var left []string
	b, _ := os.ReadFile(file)
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, name) {
			left = append(left, what+" "+strings.TrimSpace(line))
		}
	}
	return left
}

func loopsOf(name string) []string {
	var left []string
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if strings.Contains(string(b), name) || strings.Contains(string(b), stalledDisk) {
			left = append(left, f+" "+strings.TrimSpace(string(b)))
		}
	}
	return left
}

func cgroupsOf(name string) []string {
	var left []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && strings.Contains(path, name) {
			left = append(left, "cgroup "+path)
		}
		return nil // cgroups of others come and go
	})
	return left
}
