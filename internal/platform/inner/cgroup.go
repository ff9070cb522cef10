package inner

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/memcg"
)

// cgroups returns the container's own cgroup in every hierarchy that the VM has mounted. It leaves
// out a cgroup with other processes in it: freezing or killing it would take the platform along.
func (c *Container) cgroups() ([]memcg.Cgroup, error) {
	all, err := memcg.Of(c.pid)
	return slices.DeleteFunc(all, func(g memcg.Cgroup) bool {
		return filepath.Base(g.Dir) != cgroupName
	}), err
}

// LimitProcesses bounds the container's processes and threads: below the VM's bound, so that user
// code can't take those that the platform needs. Unsupported: its cgroup has no such controller.
func (c *Container) LimitProcesses(most int64) error {
	own, err := c.cgroups()
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "limit the machine's processes")
	}
	for _, g := range own {
		f, err := os.OpenFile(filepath.Join(g.Dir, "pids.max"), os.O_WRONLY, 0)
		if errors.Is(err, os.ErrNotExist) { // no such controller in this hierarchy
			continue
		}
		if err == nil {
			_, err = f.WriteString(strconv.FormatInt(most, 10))
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return errs.Wrap(errs.Unavailable, err, "limit the machine's processes")
		}
		return nil
	}
	return errs.New(errs.Unsupported,
		"the container has no cgroup of its own with a pids controller")
}

// LimitMemory bounds the memory of the container's processes, their page cache included, in bytes;
// 0: no bound. Pages that the machine dirties are then never charged to the platform, which has to
// write them out. Conflict: it uses more now. Unsupported: its cgroup has no memory controller.
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
	return errs.New(errs.Unsupported,
		"the container has no cgroup of its own with a memory controller")
}
