package fleettest

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// leftovers lists what there is on the machine of the kinds of things that fleets make, and that
// bears this fleet's identity or directory in its name. Other fleets may run beside it.
func (f *Fleet) leftovers() []string {
	t := f.t
	t.Helper()
	var left []string
	note := func(kind string, names ...string) {
		for _, n := range names {
			if strings.Contains(n, f.ID) || strings.Contains(n, f.Dir) {
				left = append(left, kind+" "+n)
			}
		}
	}
	for _, pattern := range []string{"/run/netns/slc-*", "/sys/fs/cgroup/*/sluice*",
		"/sys/fs/cgroup/sluice*"} {
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
	keys, err := os.ReadFile("/proc/keys")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(keys)) {
		note("key in the kernel", strings.TrimSpace(line))
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range processes {
		data, err := os.ReadFile(file)
		if err == nil {
			note("process", filepath.Base(filepath.Dir(file))+" "+strings.ReplaceAll(string(data),
				"\x00", " "))
		}
	}
	return left
}

// checkNothingLeft fails the test if anything of the fleet is left. What the kernel takes apart in
// the background gets a moment to go.
func (f *Fleet) checkNothingLeft() {
	f.t.Helper()
	deadline := time.Now().Add(3 * time.Second)
	for {
		left := f.leftovers()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			f.t.Errorf("left behind on the machine: %v", left)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}
