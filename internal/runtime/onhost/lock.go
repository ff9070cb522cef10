package onhost

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/filelock"
)

// LockDir locks a driver's directory; closing the file unlocks it. Conflict: another process has
// it. A second driver would take VMs that are just starting for remains.
func LockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "open the lock of %s", dir)
	}
	// A setup process whose worker was killed right after making it holds the lock until it execs.
	if err := filelock.Take(f); err != nil {
		if errs.Is(err, errs.Conflict) {
			err = errs.Wrap(errs.Conflict, err, "another worker uses %s", dir).
				WithRemedy("stop it, or give this worker a directory of its own")
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
