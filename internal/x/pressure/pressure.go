// Package pressure reads how much of the time work on this host waits for it: from the kernel's
// pressure stall information, and where there is none, from the load. Of each resource it is a
// share between 0 and 1, over the last ten seconds.
package pressure

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// Reading is what a host said at one moment.
type Reading struct {
	CPU, Memory, IO float64
	// by pressure stall information; else CPU is by the load, and the others aren't known
	Stalls bool
	Load   float64 // of the last minute
	Cores  int
}

// Meter reads one host.
type Meter struct {
	proc  string
	cores int
}

// New returns a meter of this host.
func New() *Meter { return At("/proc", runtime.NumCPU()) }

// At returns a meter of a host with a proc file system there, and that many cores.
func At(proc string, cores int) *Meter { return &Meter{proc: proc, cores: max(cores, 1)} }

// Read returns the host's pressure now. A work that waits for a core does so only because there are
// more than cores: CPU is never more than what the load explains.
func (m *Meter) Read() (Reading, error) {
	r := Reading{Cores: m.cores}
	var err error
	if r.Load, err = m.load(); err != nil {
		return r, err
	}
	excess := 1 - float64(m.cores)/max(r.Load, float64(m.cores))
	cpu, err := m.stall("cpu")
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoStalls):
		r.CPU = excess
		return r, nil
	case err != nil:
		return r, err
	}
	r.Stalls, r.CPU = true, min(cpu, excess)
	if r.Memory, err = m.stall("memory"); err != nil {
		return r, err
	}
	r.IO, err = m.stall("io")
	return r, err
}

func (m *Meter) load() (float64, error) {
	b, err := os.ReadFile(filepath.Join(m.proc, "loadavg"))
	if err != nil {
		return 0, fmt.Errorf("read the load: %w", err)
	}
	first, _, _ := strings.Cut(string(b), " ")
	load, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0, fmt.Errorf("read the load: %w", err)
	}
	return load, nil
}

// errNoStalls: the kernel has the files, and was told not to fill them.
var errNoStalls = errors.New("no pressure stall information")

// stall returns the share of the last ten seconds in which something waited for a resource.
func (m *Meter) stall(resource string) (float64, error) {
	path := filepath.Join(m.proc, "pressure", resource)
	b, err := os.ReadFile(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
		return 0, errNoStalls
	}
	for _, line := range strings.Split(string(b), "\n") {
		rest, ok := strings.CutPrefix(line, "some avg10=")
		if !ok {
			continue
		}
		value, _, _ := strings.Cut(rest, " ")
		percent, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", path, err)
		}
		return percent / 100, nil
	}
	return 0, errNoStalls
}
