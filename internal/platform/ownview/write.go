package ownview

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// load is the average number of threads that run or want to, as the kernel keeps it.
type load struct {
	at       time.Duration // of the last count, since the start of the host
	averages [3]float64
}

// add counts in how many run at a time. The first count is where the averages begin.
func (l *load) add(at time.Duration, running float64) {
	since := (at - l.at).Minutes()
	first := l.at == 0
	l.at = at
	for i, minutes := range []float64{1, 5, 15} {
		keep := math.Exp(-since / minutes)
		if first {
			keep = 1
		}
		l.averages[i] = l.averages[i]*keep + running*(1-keep)
	}
}

func (l *load) text(running, total int, threads []string) string {
	last := "0"
	if total > 0 {
		last = threads[total-1]
	}
	return fmt.Sprintf("%.2f %.2f %.2f %d/%d %s\n", l.averages[0], l.averages[1], l.averages[2],
		running, total, last)
}

// meminfo has the kernel's lines that programs read. A machine without a bound has the host's
// memory.
func meminfo(host, bound int64, u use) string {
	total := host
	if bound > 0 {
		total = min(bound, host)
	}
	either := func(names ...string) int64 { // v2's name, then v1's
		for _, n := range names {
			if v, ok := u.memory[n]; ok {
				return v
			}
		}
		return 0
	}
	active := either("active_file", "total_active_file")
	inactive := either("inactive_file", "total_inactive_file")
	activeAnon := either("active_anon", "total_active_anon")
	inactiveAnon := either("inactive_anon", "total_inactive_anon")
	reclaimable := either("slab_reclaimable")
	unreclaimable := either("slab_unreclaimable")
	free := max(total-u.memory["used"], 0)
	available := min(free+active+inactive+reclaimable, total)
	var b strings.Builder
	for _, line := range []struct {
		name  string
		bytes int64
	}{
		{"MemTotal", total}, {"MemFree", free}, {"MemAvailable", available}, {"Buffers", 0},
		{"Cached", either("file", "total_cache", "cache")}, {"SwapCached", 0},
		{"Active", active + activeAnon}, {"Inactive", inactive + inactiveAnon},
		{"Active(anon)", activeAnon}, {"Inactive(anon)", inactiveAnon}, {"Active(file)", active},
		{"Inactive(file)", inactive},
		{"Unevictable", either("unevictable", "total_unevictable")}, {"Mlocked", 0},
		{"SwapTotal", 0}, {"SwapFree", 0},
		{"Dirty", either("file_dirty", "total_dirty")},
		{"Writeback", either("file_writeback", "total_writeback")},
		{"AnonPages", either("anon", "total_rss")},
		{"Mapped", either("file_mapped", "total_mapped_file")},
		{"Shmem", either("shmem", "total_shmem")}, {"KReclaimable", reclaimable},
		{"Slab", reclaimable + unreclaimable}, {"SReclaimable", reclaimable},
		{"SUnreclaim", unreclaimable}, {"KernelStack", either("kernel_stack")},
		{"PageTables", either("pagetables")}, {"CommitLimit", total},
		{"Committed_AS", either("anon", "total_rss")},
	} {
		fmt.Fprintf(&b, "%-16s%8d kB\n", line.name+":", line.bytes>>10)
	}
	for _, name := range []string{"Total", "Free", "Rsvd", "Surp"} {
		fmt.Fprintf(&b, "%-16s%8d\n", "HugePages_"+name+":", 0)
	}
	fmt.Fprintf(&b, "%-16s%8d kB\n", "Hugepagesize:", 2048)
	return b.String()
}

// stat shares what the machine has used out among its processors; all else of their time since the
// start they were idle.
func stat(h host, u use, processors, running, total int) string {
	user, system := inTicks(u.user), inTicks(u.system)
	n := int64(processors)
	idle := max(inTicks(h.uptime)*n-user-system, 0)
	var b strings.Builder
	line := func(name string, by int64) {
		fmt.Fprintf(&b, "%s %d 0 %d %d 0 0 0 0 0 0\n", name, user/by, system/by, idle/by)
	}
	line("cpu ", 1)
	for i := range processors {
		line(fmt.Sprintf("cpu%d", i), n)
	}
	fmt.Fprintf(&b, "intr 0\nctxt 0\n%sprocesses %d\nprocs_running %d\nprocs_blocked 0\nsoftirq 0\n",
		h.booted, total, max(running, 1))
	return b.String()
}
