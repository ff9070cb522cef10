package fileblob

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	// lock files are few and never removed, so that two holders can't hold two of one name
	lockStripes = 4096
	lockPause   = 20 * time.Microsecond
	maxPause    = 2 * time.Millisecond
	// a holder holds it for microseconds, unless it was stopped right there
	lockWait = 15 * time.Second
)

// writeTemp writes body to a new temporary file, gives it a fresh ETag and makes both durable.
func (s *Store) writeTemp(body []byte) (name string, etag blob.ETag, err error) {
	tag := randomTag()
	name = s.tmp + "/" + tag
	fd, err := open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, fileMode)
	if err != nil {
		return "", "", failure(err, "write temporary file")
	}
	err = func() error {
		if err := unix.Fsetxattr(fd, etagAttr, []byte(tag), 0); err != nil {
			if errors.Is(err, unix.ENOTSUP) {
				return errs.Wrap(errs.Unsupported, err,
					"file system of %s has no extended attributes", s.root).
					WithRemedy("keep the store on ext4, xfs, btrfs or a recent tmpfs")
			}
			return err
		}
		if err := writeFull(fd, body); err != nil {
			return err
		}
		return fsync(fd)
	}()
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return "", "", errors.Join(failure(err, "write temporary file"), removeIfThere(name))
	}
	return name, blob.ETag(tag), nil
}

// publish makes path's directory, does act, which gives path a new content, and makes that durable.
//
// The directory may vanish between the two, because a Delete removes the directories that it
// empties; then it is made again.
func (s *Store) publish(path string, act func() error) error {
	dir := filepath.Dir(path)
	for {
		if err := s.ensureDir(dir); err != nil {
			return err
		}
		err := act()
		if errors.Is(err, unix.ENOENT) && errs.Is(err, errs.Unavailable) {
			if _, statErr := os.Stat(dir); errors.Is(statErr, fs.ErrNotExist) {
				s.forget(dir)
				continue
			}
		}
		if err != nil {
			return err
		}
		err = s.syncDir(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil // where the directory is gone, somebody has deleted the object since
		}
		return errs.Wrap(errs.Unavailable, err, "make %s durable", path)
	}
}

// lock takes the lock of key, among all goroutines and processes, and returns what lets go of it.
func (s *Store) lock(ctx context.Context, key string) (unlock func(), err error) {
	h := fnv.New32a()
	h.Write([]byte(key))
	name := fmt.Sprintf("%s/%03x", s.locks, h.Sum32()%lockStripes)
	fd, err := open(name, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, fileMode)
	if err != nil {
		return nil, failure(err, "lock object %s", key)
	}
	deadline := time.Now().Add(lockWait)
	for pause := lockPause; ; pause = min(2*pause, maxPause) {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { release(fd) }, nil // closing lets go of it
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			release(fd)
			return nil, failure(err, "lock object %s", key)
		}
		if time.Now().After(deadline) {
			release(fd)
			return nil, errs.New(errs.Unavailable, "lock of object %s is held for more than %s",
				key, lockWait).
				WithRemedy("find the stopped process that holds %s (fuser -v) and end it", name)
		}
		if backoff.Sleep(ctx, pause) != nil {
			release(fd)
			return nil, errs.Wrap(errs.Unavailable, ctx.Err(), "lock object %s", key)
		}
	}
}
