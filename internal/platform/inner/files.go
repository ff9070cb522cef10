package inner

import (
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// CheckFiles returns nil if processes of the container can have a limit of n open files; 0 is any.
// Unsupported: the container's own hard limit, which is the worker's, is less.
func (c *Container) CheckFiles(n int64) error {
	if n == 0 {
		return nil
	}
	var now unix.Rlimit
	if err := unix.Prlimit(c.pid, unix.RLIMIT_NOFILE, nil, &now); err != nil {
		return errs.Wrap(errs.Unavailable, err, "read the container's limit of open files")
	}
	if uint64(n) <= now.Max {
		return nil
	}
	return errs.New(errs.Unsupported, "the machine is to have a limit of %d open files, and "+
		"its worker gives at most %d", n, now.Max).
		WithRemedy("give the worker the capability CAP_SYS_RESOURCE or a larger limit of its own "+
			"(LimitNOFILE), or create the machine with --nofile %d or less", now.Max)
}
