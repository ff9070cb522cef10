package main

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	// littleRoom is what should be free in the server's directory, in bytes: etcd takes 64 MB for
	// its log at a time.
	littleRoom = 512 << 20
	// roomInterval is the interval between checks.
	roomInterval = time.Minute
)

// warnOfFullDisk warns when the server's directory is almost full, once until there has been space
// again. The server ends when the directory is full.
func warnOfFullDisk(ctx context.Context, dir string, log *slog.Logger) error {
	tick := time.NewTicker(roomInterval)
	defer tick.Stop()
	warned := false
	for {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return errs.Wrap(errs.Unavailable, err, "look for room in %s", dir)
		}
		free := int64(st.Bavail) * st.Bsize
		if free < littleRoom && !warned {
			log.WarnContext(ctx,
				"the server's directory is almost full; free space before the server has to end",
				"dir", dir, "free_mib", free>>20)
		}
		warned = free < littleRoom
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
