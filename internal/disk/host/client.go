package host

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/diskapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Client returns a client of the process that has a disk attached for writing.
func Client(r *attachment.Record) *diskapi.Client {
	return diskapi.NewClient(diskapi.NewCaller(diskapi.CallerConfig{Socket: r.Control,
		Who: fmt.Sprintf("process %d, which has the disk", r.PID), Once: true,
		Watch: func(answered <-chan struct{}) error { return freeIfStuck(r.Process, answered) },
	}), "")
}

// Checkpoint asks the process that has a disk for a checkpoint. What a mounted file system has in
// memory is written out first, so that the checkpoint has all that was written before the call.
func Checkpoint(ctx context.Context, r *attachment.Record,
	name string) (api.DiskCheckpoint, error) {
	if r.Mountpoint != "" {
		if err := SyncMount(r.Mountpoint); err != nil {
			return api.DiskCheckpoint{}, err
		}
	}
	return Client(r).Checkpoint(ctx, name)
}

// statsWait bounds how long an attachment of this host is waited for to say what it does.
const statsWait = time.Second

// Stats asks the process that has the disk what it does; nil where that can't be told.
func Stats(ctx context.Context, r *attachment.Record) *disk.Stats {
	if r.ReadOnly || r.Control == "" || r.Ended != "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, statsWait)
	defer cancel()
	s, err := Client(r).Stats(ctx)
	if err != nil {
		return nil
	}
	return &s
}

// stuckInterval is between two looks at a process that was asked for something.
const stuckInterval = 500 * time.Millisecond

// freeIfStuck frees a process that is killed amid what it was asked for and then waits for its own
// device: growing a loop device has the kernel ask whoever serves its file. Whoever asked would
// wait for ever too, as the socket stays open.
func freeIfStuck(p attachment.Process, answered <-chan struct{}) error {
	tick := time.NewTicker(stuckInterval)
	defer tick.Stop()
	for stuck := false; ; stuck = p.Stuck() {
		if stuck {
			return p.Free()
		}
		select {
		case <-answered:
			return nil
		case <-tick.C:
		}
	}
}

// SyncMount writes out the file system that dir is on.
func SyncMount(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "open %s", dir)
	}
	defer unix.Close(fd)
	if err := unix.Syncfs(fd); err != nil {
		return errs.Wrap(errs.Unavailable, err, "write out %s", dir)
	}
	return nil
}
