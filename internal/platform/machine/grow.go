package machine

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// growDisk grows the mounted file system to the size of its disk, which may exceed its image's. If
// it can't grow, the machine runs with the space that it has, and its report says so.
func (p *Platform) growDisk(ctx context.Context, device string) error {
	has, could, err := p.fs.grow(ctx, device)
	note := ""
	if err != nil {
		if could == 0 { // it isn't even known how large it is
			return err
		}
		p.log.WarnContext(ctx, "the machine's file system has not grown", "error", err)
		note = ungrown(has, could, err)
	}
	return p.status.update(func(s *saved) { s.Health.Disk.Ungrown = note })
}

// ungrown returns a sentence that says how much space a file system lacks, why, and what to do.
func ungrown(has, could int64, err error) string {
	var errno unix.Errno
	why, remedy := err.Error(),
		"look in the kernel's log of the machine's worker, and start the machine again"
	if errors.As(err, &errno) {
		why = errno.Error()
	}
	if errno == unix.EPERM {
		remedy = "give the worker the capability CAP_SYS_RESOURCE, and start the machine again; if it has that, check the file system on a fork of the disk"
	}
	return fmt.Sprintf("the file system has %d MiB of the disk's %d MiB, and can't grow: %s (%s)",
		has>>20, could>>20, why, remedy)
}
