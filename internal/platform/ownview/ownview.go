// Package ownview shows a machine its own processors, memory and load, where the kernel would show
// the host's.
//
// It keeps a few small files, which are mounted over the kernel's in the machine. They are written
// in place every few seconds. If nobody writes them any more, the machine reads what was last: no
// reader ever waits for the platform.
//
// Invariants: a file that is mounted is never replaced by another. What can't be found out is left
// as it was.
package ownview

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// Shown is a file of ours, and the one of the kernel that it is mounted over.
type Shown struct{ File, Over string }

// Files are all of them, below a View's directory.
func Files() []Shown {
	const processors = "/sys/devices/system/cpu/"
	return []Shown{{"meminfo", "/proc/meminfo"}, {"cpuinfo", "/proc/cpuinfo"},
		{"stat", "/proc/stat"}, {"loadavg", "/proc/loadavg"}, {"swaps", "/proc/swaps"},
		{"online", processors + "online"}, {"present", processors + "present"},
		{"possible", processors + "possible"}}
}

// View is what one machine is shown. It must not be used concurrently.
type View struct {
	dir  string
	host host // but for its uptime, as it was at first: to ask for more is work for a large host
	load load
}

// Make makes the files, in a directory that isn't there yet. They show nothing of the host.
func Make(dir string) (*View, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil { //nolint:gosec // the container passes through
		return nil, fmt.Errorf("make the machine's own view: %w", err)
	}
	for _, f := range Files() {
		err := os.WriteFile(filepath.Join(dir, f.File), nil,
			0o444) //nolint:gosec // all may read it
		if err != nil {
			return nil, fmt.Errorf("make the machine's own view: %w", err)
		}
	}
	return Open(dir), nil
}

// Open returns the view whose files an earlier process has made.
func Open(dir string) *View { return &View{dir: dir} }

// Update writes what is so now for a machine with these resources, whose processes are in cgroups.
func (v *View) Update(r fleet.Resources, cgroups []string) error {
	if v.host.processors == 0 {
		var err error
		if v.host, err = readHost(); err != nil {
			return err
		}
	}
	host := v.host
	var err error
	if host.uptime, err = uptime(); err != nil {
		return err
	}
	u := readUse(cgroups)
	processors := host.processors
	if want := int((r.CPUMillis + 999) / 1000); want > 0 {
		processors = min(processors, want)
	}
	running, total := count(u.threads)
	v.load.add(host.uptime, float64(running))
	online := "0\n"
	if processors > 1 {
		online = fmt.Sprintf("0-%d\n", processors-1)
	}
	return errors.Join(
		v.write("online", online), v.write("present", online), v.write("possible", online),
		v.write("cpuinfo", firstProcessors(host.cpuinfo, processors)),
		v.write("meminfo", meminfo(host.memory, r.MemoryMiB<<20, u)),
		v.write("stat", stat(host, u, processors, running, total)),
		v.write("loadavg", v.load.text(running, total, u.threads)),
		v.write("swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"),
	)
}

// write changes a file in place: the machine's mount is of this very file.
func (v *View) write(name, text string) error {
	f, err := os.OpenFile(filepath.Join(v.dir, name), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("show the machine its own %s: %w", name, err)
	}
	defer f.Close()
	old, err := io.ReadAll(f)
	if err == nil && string(old) == text {
		return nil
	}
	if err == nil {
		_, err = f.WriteAt([]byte(text), 0) // as one write, so that few readers see half of it
	}
	if err == nil && len(text) < len(old) {
		err = f.Truncate(int64(len(text)))
	}
	if err != nil {
		return fmt.Errorf("show the machine its own %s: %w", name, err)
	}
	return nil
}

// firstProcessors returns the kernel's description of the first n processors.
func firstProcessors(cpuinfo string, n int) string {
	blocks := strings.SplitAfter(cpuinfo, "\n\n")
	var kept strings.Builder
	for _, b := range blocks {
		if strings.HasPrefix(b, "processor") {
			if n == 0 {
				break
			}
			n--
		}
		kept.WriteString(b)
	}
	return kept.String()
}
