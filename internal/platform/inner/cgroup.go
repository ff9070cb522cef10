package inner

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/memcg"
)

const cgroupRoot = "/sys/fs/cgroup"

// cgroups returns the container's own cgroup in every hierarchy that the VM has mounted. A cgroup that holds more than the
// container would take the platform with it, and is none.
func (c *Container) cgroups() ([]memcg.Cgroup, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(c.pid) + "/cgroup")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var own []memcg.Cgroup
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// hierarchy-ID:controllers:path
		parts := strings.SplitN(lines.Text(), ":", 3)
		if len(parts) != 3 || filepath.Base(parts[2]) != cgroupName {
			continue
		}
		isV2 := parts[0] == "0"
		for _, mount := range []string{parts[1], "unified"} {
			dir := filepath.Join(cgroupRoot, mount, parts[2])
			if isV2 == (mount == "" || mount == "unified") && isDir(dir) {
				own = append(own, memcg.Cgroup{Dir: dir, V2: isV2})
				break
			}
		}
	}
	return own, lines.Err()
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// LimitMemory bounds what the container's processes use, their page cache included, in bytes; 0 lifts the bound. What the
// machine dirties is then never charged to the platform, which has to write it out. Conflict: it uses more now. Unsupported:
// its cgroup has no memory controller.
func (c *Container) LimitMemory(bytes int64) error {
	own, err := c.cgroups()
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "limit the machine's memory")
	}
	for _, g := range own {
		err := g.Limit(bytes)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, os.ErrNotExist): // no memory controller in this hierarchy
		case errors.Is(err, unix.EBUSY):
			return errs.Wrap(errs.Conflict, err, "the machine uses more than %d MiB now", bytes>>20)
		default:
			return errs.Wrap(errs.Unavailable, err, "limit the machine's memory")
		}
	}
	return errs.New(errs.Unsupported, "the container has no cgroup of its own with a memory controller")
}
