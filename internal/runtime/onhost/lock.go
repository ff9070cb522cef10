package onhost

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// lockTimeout is how long LockDir waits.
const lockTimeout = 2 * time.Second

// LockDir takes a driver's directory, or keeps a second driver away from it: that would take VMs that are just
// starting for remains. Conflict if another process has it. Closing the file gives it up.
func LockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "open the lock of %s", dir)
	}
	// A setup process whose worker was killed right after making it holds the lock until it execs.
	ctx, cancel := context.WithTimeout(context.Background(), lockTimeout)
	defer cancel()
	err = Poll(ctx, func() (bool, error) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return nil, errors.Join(
			errs.Wrap(errs.Conflict, err, "another worker uses %s", dir).
				WithRemedy("stop it, or give this worker a directory of its own"),
			f.Close())
	}
	return f, nil
}
