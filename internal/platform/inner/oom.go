package inner

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// OOMKills returns how many of the container's processes the kernel has killed for lack of memory since it was made.
// It has counted one before that ends. Unsupported: the container has no memory cgroup of its own.
func (c *Container) OOMKills() (int64, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(c.pid) + "/cgroup")
	if err != nil {
		return 0, errs.Wrap(errs.NotFound, err, "the container has ended")
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		for _, file := range oomFiles(lines.Text()) {
			text, err := os.ReadFile(file)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return 0, errs.Wrap(errs.Unavailable, err, "read the count of processes killed for lack of memory")
			}
			return oomKills(string(text))
		}
	}
	return 0, errs.New(errs.Unsupported, "the container has no memory cgroup of its own")
}

// oomFiles returns where a line of /proc/PID/cgroup says that the count may be: in the memory cgroup of v1, which
// counts its own processes, or in the one of v2, which counts those below it too.
func oomFiles(line string) []string {
	// hierarchy-ID:controllers:path
	parts := strings.SplitN(line, ":", 3)
	if len(parts) != 3 || filepath.Base(parts[2]) != cgroupName {
		return nil
	}
	switch {
	case slices.Contains(strings.Split(parts[1], ","), "memory"):
		return []string{filepath.Join(cgroupRoot, parts[1], parts[2], "memory.oom_control")}
	case parts[0] == "0":
		return []string{filepath.Join(cgroupRoot, parts[2], "memory.events"), filepath.Join(cgroupRoot, "unified", parts[2], "memory.events")}
	}
	return nil
}

// oomKills finds the count among lines of a name and a number.
func oomKills(text string) (int64, error) {
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name == "oom_kill" {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return 0, errs.Wrap(errs.Corrupt, err, "count of processes killed for lack of memory")
			}
			return n, nil
		}
	}
	return 0, errs.New(errs.Unsupported, "this kernel doesn't count processes killed for lack of memory")
}
