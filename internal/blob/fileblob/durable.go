package fileblob

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// durableAttr marks a directory whose own name was made durable, and those of its parents. A
// directory that is there may have been made by a process that died before it had synced the name;
// without the mark each new process would have to do that for all of them, and most processes are
// one command.
const durableAttr = "user.sluice.durable"

// ensureDir makes dir and its parents, and their names durable, unless it is known that they are.
func (s *Store) ensureDir(dir string) error {
	if dir == s.root || s.isDurable(dir) {
		return nil
	}
	if isMarked(dir) {
		s.noteDurable(dir)
		return nil
	}
	parent := filepath.Dir(dir)
	for {
		if err := s.ensureDir(parent); err != nil {
			return err
		}
		err := mkdir(dir)
		if errors.Is(err, fs.ErrNotExist) { // the parent was emptied and removed meanwhile
			s.forget(parent)
			continue
		}
		if err != nil {
			return err
		}
		break
	}
	err := s.mark(dir, func() error { return s.syncDir(parent) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.noteDurable(dir)
	return nil
}

// mark has sync make the name of dir durable, and then marks it. It marks what was dir before the
// sync, and not what somebody may have put in its place since. ErrNotExist: dir is gone.
func (s *Store) mark(dir string, sync func() error) error {
	fd, err := open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer release(fd)
	if err := sync(); err != nil {
		return err
	}
	if err := unix.Fsetxattr(fd, durableAttr, []byte("1"), 0); err != nil {
		return &os.PathError{Op: "mark", Path: dir, Err: err}
	}
	return nil
}

func isMarked(dir string) bool {
	var value [1]byte
	n, err := unix.Getxattr(dir, durableAttr, value[:])
	return err == nil && n == 1
}

func (s *Store) isDurable(dir string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.durable[dir]
	return ok
}

func (s *Store) noteDurable(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.durable[dir] = struct{}{}
}

func (s *Store) forget(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.durable, dir)
}

// syncDir makes durable what names a directory has.
func (s *Store) syncDir(dir string) error {
	fd, err := open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer release(fd)
	s.syncs.Add(1)
	return fsync(fd)
}
