package etcdstate

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// dirLock is the claim of one process on a data directory. The kernel lets go of it when the
// process dies, however it dies.
type dirLock struct{ file *os.File }

// lockDir claims dir, which must exist, or says at once who has it.
func lockDir(dir string) (*dirLock, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "open the lock of the state directory")
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errTaken(dir, path)
		}
		return nil, errs.Wrap(errs.Internal, err, "lock the state directory %s", dir)
	}
	// The pid is for people; the claim holds without it.
	pid := []byte(strconv.Itoa(os.Getpid()) + "\n")
	if err := errors.Join(f.Truncate(0), writeAll(f, pid)); err != nil {
		return nil, errors.Join(errs.Wrap(errs.Internal, err, "note the pid in %s",
			path), f.Close())
	}
	return &dirLock{file: f}, nil
}

func writeAll(f *os.File, b []byte) error {
	_, err := f.WriteAt(b, 0)
	return err
}

func errTaken(dir, path string) error {
	holder := "another process"
	if b, err := os.ReadFile(path); err == nil {
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			holder = "process " + strconv.Itoa(pid)
		}
	}
	return errs.New(errs.Conflict, "the state directory %s is in use by %s", dir, holder).
		WithRemedy("stop that server first, or give this one a directory of its own")
}

func (l *dirLock) release() error {
	if err := l.file.Close(); err != nil {
		return errs.Wrap(errs.Internal, err, "release the state directory")
	}
	return nil
}
