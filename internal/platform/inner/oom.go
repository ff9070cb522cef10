package inner

import (
	"errors"
	"io/fs"

	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/memcg"
)

// OOMKills returns how many of the container's processes the kernel has killed for lack of memory
// since it was made. The kernel counts a kill before the process ends. Unsupported: the container
// has no memory cgroup of its own.
func (c *Container) OOMKills() (int64, error) {
	own, err := c.cgroups()
	if err != nil {
		return 0, errs.Wrap(errs.NotFound, err, "the container has ended")
	}
	n, err := memcg.Kills(own)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, errs.New(errs.Unsupported, "the container has no memory cgroup of its own")
	case err != nil:
		return 0, errs.Wrap(errs.Unavailable, err, "count processes killed for lack of memory")
	}
	return n, nil
}
