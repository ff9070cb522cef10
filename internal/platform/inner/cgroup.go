package inner

import (
	"errors"
	"os"
	"path/filepath"
	"slices"

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
