package ownview

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// host is what the kernel says of the host, as far as a machine's view is made of it.
type host struct {
	processors int
	cpuinfo    string
	memory     int64 // bytes
	uptime     time.Duration
	booted     string // the line of /proc/stat
}

func readHost() (host, error) {
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return host{}, fmt.Errorf("read the processors: %w", err)
	}
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return host{}, fmt.Errorf("read the processors' times: %w", err)
	}
	h := host{cpuinfo: string(cpuinfo)}
	for line := range strings.Lines(string(stat)) {
		name, _, _ := strings.Cut(line, " ")
		switch {
		case name == "btime":
			h.booted = line
		case len(name) > len("cpu") && strings.HasPrefix(name, "cpu"):
			h.processors++
		}
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return host{}, fmt.Errorf("ask for the memory: %w", err)
	}
	h.memory = int64(info.Totalram * uint64(info.Unit)) //nolint:gosec // a size of memory
	return h, nil
}

func uptime() (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, fmt.Errorf("ask for the time since the start: %w", err)
	}
	return time.Duration(now.Nano()), nil
}

// use is what a machine's processes use.
type use struct {
	user, system time.Duration
	memory       map[string]int64 // of the kernel's names, in bytes; "used" is all of it
	threads      []string
}

// readUse reads what it finds in a machine's cgroups, one in each hierarchy, of either version.
func readUse(cgroups []string) use {
	u := use{memory: map[string]int64{}}
	for _, dir := range cgroups {
		v2 := numbers(filepath.Join(dir, "cpu.stat"))
		v1 := numbers(filepath.Join(dir, "cpuacct.stat"))
		if at, ok := v2["user_usec"]; ok {
			u.user = time.Duration(at) * time.Microsecond
			u.system = time.Duration(v2["system_usec"]) * time.Microsecond
		} else if at, ok := v1["user"]; ok && u.user == 0 {
			u.user, u.system = ofTicks(at), ofTicks(v1["system"])
		}
		for _, file := range []string{"memory.current", "memory.usage_in_bytes"} {
			if text, err := os.ReadFile(filepath.Join(dir, file)); err == nil {
				n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
				u.memory = numbers(filepath.Join(dir, "memory.stat"))
				u.memory["used"] = n
			}
		}
		for _, file := range []string{"cgroup.threads", "tasks"} {
			if text, err := os.ReadFile(filepath.Join(dir, file)); err == nil && len(text) > 0 {
				u.threads = strings.Fields(string(text))
			}
		}
	}
	return u
}

// ticks are what the kernel counts processors' time in, for programs, a second.
const ticks = 100

func ofTicks(n int64) time.Duration { return time.Duration(n) * time.Second / ticks }

func inTicks(d time.Duration) int64 { return int64(d * ticks / time.Second) }

// numbers reads a file of lines with a name and a number; none: it isn't there.
func numbers(file string) map[string]int64 {
	all := map[string]int64{}
	text, err := os.ReadFile(file)
	if err != nil {
		return all
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			all[name] = n
		}
	}
	return all
}

// looked bounds how many threads are looked at, each of which takes some microseconds.
const looked = 512

// count returns how many threads run or wait for the disk, and how many there are. Of many threads
// it looks at some.
func count(threads []string) (running, total int) {
	for i, tid := range threads {
		if i == looked {
			running = running * len(threads) / looked
			break
		}
		text, err := os.ReadFile(filepath.Join("/proc", tid, "stat"))
		if err != nil {
			continue // it has ended
		}
		_, after, _ := strings.Cut(string(text), ") ")
		if strings.HasPrefix(after, "R") || strings.HasPrefix(after, "D") {
			running++
		}
	}
	return running, len(threads)
}
