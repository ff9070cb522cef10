package fleettest

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Leftovers is what there is on the machine of the kinds of things that fleets make.
type Leftovers map[string]bool

// Snapshot looks now.
func Snapshot(t testing.TB) Leftovers {
	t.Helper()
	l := Leftovers{}
	note := func(kind string, names ...string) {
		for _, n := range names {
			l[kind+" "+n] = true
		}
	}
	for _, pattern := range []string{"/run/netns/slc-*", "/sys/fs/cgroup/*/sluice*", "/sys/fs/cgroup/sluice*"} {
		found, _ := filepath.Glob(pattern) // the patterns are well-formed
		note("path", found...)
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		note("link", link.Name)
	}
	backing, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, file := range backing {
		data, err := os.ReadFile(file)
		if err == nil {
			note("loop device of", strings.TrimSpace(string(data)))
		}
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(mounts), "\n") {
		if f := strings.Fields(line); len(f) > 1 {
			note("mount", f[1])
		}
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range processes {
		data, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(data), "sluice") && !strings.Contains(string(data), ".test") {
			note("process", filepath.Base(filepath.Dir(file))+" "+strings.ReplaceAll(string(data), "\x00", " "))
		}
	}
	return l
}

// Check fails the test if there is anything now that wasn't there before. What the kernel takes apart
// in the background gets a moment to go.
func (l Leftovers) Check(t testing.TB) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Second)
	for {
		var left []string
		for name := range Snapshot(t) {
			if !l[name] {
				left = append(left, name)
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("left behind on the machine: %v", left)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}
