// Package fileblob is an object store in a directory of one host, shared by any number of
// processes.
//
// An object is a plain file at its key. Its ETag is 16 random bytes in an extended attribute, set
// before the file is published, so body and ETag appear together. Invariants:
//   - A body is written to a nameless-to-readers temporary file and fsynced before a rename
//     publishes it, and the directory is fsynced before the call returns. A crash at any point
//     leaves the old object, the new one, or none; never half a one. Published files are never
//     written again.
//   - PutIfAbsent is one rename that refuses to replace. Put, PutIfMatch and Delete change what is
//     there, so they compare and act under a lock on the key that every process sees (flock, let go
//     by the kernel when its holder dies). It is held for microseconds: no body is written and
//     nothing is fsynced under it.
//   - Everything that isn't an object lies under ".sluice" in the root: temporary files and lock
//     files.
package fileblob

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	privateDir = ".sluice"
	etagAttr   = "user.sluice.etag"
	fileMode   = 0o640
	dirMode    = 0o750
	// staleAfter is the age at which a temporary file is nobody's. A writer that was stopped for
	// longer and wakes finds its file gone and fails; it can't publish anything.
	staleAfter = 10 * time.Minute
)

// Store is an object store in a directory. It is safe for concurrent use, also by several
// processes.
type Store struct {
	root, tmp, locks string

	syncs atomic.Int64 // of directories

	mu      sync.Mutex
	durable map[string]struct{} // directories whose own names are known to be durable
}

var _ blob.Store = (*Store)(nil)

// Open opens the store in the directory root, and makes the directory if only its last element is
// missing. It fails with Unsupported on a file system that lacks what the guarantees are built on.
func Open(root string) (*Store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "open store %s", root)
	}
	s := &Store{
		root:    root,
		tmp:     filepath.Join(root, privateDir, "tmp"),
		locks:   filepath.Join(root, privateDir, "locks"),
		durable: map[string]struct{}{},
	}
	if _, err := os.Stat(s.tmp); err != nil || !isMarked(s.locks) { // the last that is made
		if err := s.create(); err != nil {
			return nil, err
		}
	}
	if _, err := s.Sweep(staleAfter); err != nil {
		return nil, err
	}
	return s, nil
}

// create makes the store's own directories, durably. They may be there, from one that was cut
// short.
func (s *Store) create() error {
	if err := mkdir(s.root); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return errs.Wrap(errs.NotFound, err, "open store").WithRemedy("create %s first",
				filepath.Dir(s.root))
		}
		return failure(err, "open store")
	}
	for _, dir := range []string{filepath.Join(s.root, privateDir), s.tmp, s.locks} {
		if err := mkdir(dir); err != nil {
			return failure(err, "open store")
		}
	}
	if err := s.tryAttribute(); err != nil {
		return err
	}
	err := s.mark(s.locks, func() error {
		return errors.Join(s.syncDir(filepath.Dir(s.root)), s.syncDir(s.root),
			s.syncDir(filepath.Dir(s.tmp)))
	})
	return failure(err, "open store")
}

// mkdir makes one directory; one that is there already is fine.
func mkdir(dir string) error {
	if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// tryAttribute refuses a file system without extended attributes before anything is stored on it.
func (s *Store) tryAttribute() error {
	name, _, err := s.writeTemp(nil)
	if err != nil {
		return err
	}
	if err := os.Remove(name); err != nil {
		return failure(err, "open store")
	}
	return nil
}

// Sweep removes temporary files older than age, which processes that died have left, and returns
// how many there were. Open does so; a long-running process may call it again.
func (s *Store) Sweep(age time.Duration) (int, error) {
	entries, err := os.ReadDir(s.tmp)
	if err != nil {
		return 0, failure(err, "sweep temporary files")
	}
	swept := 0
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || time.Since(info.ModTime()) < age {
			continue // gone already, or somebody's
		}
		if err := os.Remove(filepath.Join(s.tmp, e.Name())); err == nil {
			swept++
		} else if !errors.Is(err, fs.ErrNotExist) {
			return swept, failure(err, "sweep temporary files")
		}
	}
	return swept, nil
}

// Get implements blob.Store: one open, one pread.
func (s *Store) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	path, err := s.path(ctx, key)
	if err != nil {
		return blob.Object{}, err
	}
	fd, size, etag, err := find(path)
	if err != nil {
		return blob.Object{}, failure(err, "get object %s", key)
	}
	defer release(fd)
	offset, count, err := r.Resolve(size)
	if err != nil {
		return blob.Object{}, err
	}
	data := make([]byte, count)
	if err := readFull(fd, data, offset); err != nil {
		return blob.Object{}, failure(err, "get object %s", key)
	}
	return blob.Object{Data: data, ETag: etag, Size: size}, nil
}

// Put implements blob.Store.
func (s *Store) Put(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	return s.replace(ctx, key, body, func(string) error { return nil })
}

// PutIfMatch implements blob.Store.
func (s *Store) PutIfMatch(ctx context.Context, key string, body []byte,
	match blob.ETag) (blob.ETag, error) {
	same := func(path string) error {
		fd, _, etag, err := find(path)
		if err != nil {
			return failure(err, "put object %s", key)
		}
		release(fd)
		if etag != match {
			return errs.New(errs.Conflict, "object %s has changed", key)
		}
		return nil
	}
	// Losers of a race are common and should cost no fsync; the look that counts is the one under
	// the lock.
	path, err := s.path(ctx, key)
	if err != nil {
		return "", err
	}
	if err := same(path); err != nil {
		return "", err
	}
	return s.replace(ctx, key, body, same)
}

func (s *Store) replace(ctx context.Context, key string, body []byte,
	condition func(path string) error) (blob.ETag, error) {
	path, err := s.path(ctx, key)
	if err != nil {
		return "", err
	}
	name, etag, err := s.writeTemp(body)
	if err != nil {
		return "", err
	}
	err = s.publish(path, func() error {
		unlock, err := s.lock(ctx, key)
		if err != nil {
			return err
		}
		defer unlock()
		if err := condition(path); err != nil {
			return err
		}
		return rename(name, path, 0)
	})
	if err != nil {
		// After a rename the name is gone, and this removes nothing.
		return "", errors.Join(failure(err, "put object %s", key), removeIfThere(name))
	}
	return etag, nil
}

// PutIfAbsent implements blob.Store.
func (s *Store) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	path, err := s.path(ctx, key)
	if err != nil {
		return "", err
	}
	if err := s.refused(path, key); err != nil { // spares the loser of a race two fsyncs
		return "", err
	}
	name, etag, err := s.writeTemp(body)
	if err != nil {
		return "", err
	}
	err = s.publish(path, func() error {
		err := rename(name, path, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EEXIST) {
			return errors.Join(s.refused(path, key), err)
		}
		return err
	})
	if err != nil {
		return "", errors.Join(failure(err, "put object %s", key), removeIfThere(name))
	}
	return etag, nil
}

// refused returns why a new object can't be published at path, or nil if nothing is there. A
// Conflict is also the answer to one who repeats a write that lost its response, so what is there
// is made durable first.
func (s *Store) refused(path, key string) error {
	var st unix.Stat_t
	switch err := unix.Lstat(path, &st); {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return failure(err, "put object %s", key)
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return errs.New(errs.Invalid, "object %s is a directory of other objects", key)
	}
	if err := s.syncDir(filepath.Dir(path)); err != nil {
		return errs.Wrap(errs.Unavailable, err, "object %s exists, perhaps not durably", key)
	}
	return errs.New(errs.Conflict, "object %s exists already", key)
}

// Delete implements blob.Store. It also removes directories that it leaves empty.
func (s *Store) Delete(ctx context.Context, key string) error {
	path, err := s.path(ctx, key)
	if err != nil {
		return err
	}
	unlock, err := s.lock(ctx, key)
	if err != nil {
		return err
	}
	err = unix.Unlink(path)
	unlock()
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EISDIR):
		// It may be gone by the hand of one who has died since, before that was durable.
	case err != nil:
		return failure(err, "delete object %s", key)
	}
	dir := filepath.Dir(path)
	if err = s.syncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) &&
		!errors.Is(err, unix.ENOTDIR) {
		return failure(err, "delete object %s", key)
	}
	for ; dir != s.root && unix.Rmdir(dir) == nil; dir = filepath.Dir(dir) {
		s.forget(dir)
	}
	return nil
}

// Close implements blob.Store.
func (s *Store) Close() error { return nil }

// path returns where an object lies.
func (s *Store) path(ctx context.Context, key string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", errs.Wrap(errs.Unavailable, err, "object %s", key)
	}
	if err := blob.CheckKey(key); err != nil {
		return "", err
	}
	if key == privateDir || strings.HasPrefix(key, privateDir+"/") {
		return "", errs.New(errs.Invalid, "object key %q is the store's own", key)
	}
	return s.root + "/" + key, nil
}

// randomTag returns an ETag that was never used before.
func randomTag() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
