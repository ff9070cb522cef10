package main

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// seen is what a process sees of the world.
type seen struct {
	PID       int
	Hostname  string
	Args, Env []string
	Mounts    []string          // mount points
	Writable  []string          // those of them that can be written to
	Links     map[string]string // interface → its addresses
	Processes []string          // pid: command
	FDs       map[string]string
	Devices   []string // files below /dev
	Cgroups   []string // lines of /proc/self/cgroup
	UserNS    string   // uid_map
}

func look() seen {
	s := seen{PID: os.Getpid(), Args: os.Args, Env: os.Environ(), Links: map[string]string{},
		FDs: map[string]string{}}
	fds, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range fds {
		s.FDs[filepath.Base(fd)], _ = os.Readlink(fd)
	}
	s.Hostname, _ = os.Hostname()
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		s.Mounts = append(s.Mounts, f[1])
		if slices.Contains(strings.Split(f[3], ","), "rw") {
			s.Writable = append(s.Writable, f[1])
		}
	}
	links, _ := net.Interfaces()
	for _, l := range links {
		addrs, _ := l.Addrs()
		var text []string
		for _, a := range addrs {
			text = append(text, a.String())
		}
		s.Links[l.Name] = strings.Join(text, " ")
	}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err == nil {
			comm, _ := os.ReadFile("/proc/" + e.Name() + "/comm")
			s.Processes = append(s.Processes, e.Name()+": "+strings.TrimSpace(string(comm)))
		}
	}
	devices, _ := os.ReadDir("/dev")
	for _, d := range devices {
		s.Devices = append(s.Devices, d.Name())
	}
	cgroups, _ := os.ReadFile("/proc/self/cgroup")
	s.Cgroups = strings.Split(strings.TrimSpace(string(cgroups)), "\n")
	uids, _ := os.ReadFile("/proc/self/uid_map")
	s.UserNS = strings.Join(strings.Fields(string(uids)), " ")
	return s
}
