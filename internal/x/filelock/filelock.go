// Package filelock takes locks on open files for a process, which the kernel lets go of when it
// dies.
//
// Such a lock belongs to the open file, of which a process that is being forked has a copy until it
// runs its program. So one of a process that was killed, or that has closed the file, may last for
// a moment more.
package filelock

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Moment is how long who takes a lock waits for one that only lasts for a moment more.
const Moment = 2 * time.Second

// Take locks f for this process alone. Conflict if another has it for longer than a moment.
func Take(f *os.File) error {
	for deadline := time.Now().Add(Moment); ; time.Sleep(Moment / 100) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return errs.Wrap(errs.Unavailable, err, "lock %s", f.Name())
		case time.Now().After(deadline):
			return errs.Wrap(errs.Conflict, err, "another process has locked %s", f.Name())
		}
	}
}

// Close lets go of the lock, whoever else still has a copy of the file, and closes f.
func Close(f *os.File) error {
	return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_UN), f.Close())
}
