package image

import (
	"cmp"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Cache is a directory of trees that images are made from. Several processes may use it at the same
// time.
//
// Each entry is a directory with the tree and a file. The file is locked while the tree is in use
// or being made; its content is the tree's size, and its time that of the last use.
type Cache struct {
	Dir   string
	Limit int64 // bytes that unused trees may make it hold; 0: no limit
}

const (
	treeName = "tree"
	useName  = "used"
	undone   = ".building-" // after a tree's name
)

// Tree is a tree of a cache, which stays there until it is closed.
type Tree struct {
	dir string
	use *os.File
}

// Dir returns the tree's directory, in which nothing may be changed.
func (t *Tree) Dir() string { return filepath.Join(t.dir, treeName) }

// Close ends the use of the tree.
func (t *Tree) Close() error { return t.use.Close() }

// Cached describes a tree of a cache.
type Cached struct {
	Name  string    `json:"name"`
	Bytes int64     `json:"bytes"`
	Used  time.Time `json:"used"`
	InUse bool      `json:"in_use,omitempty"`
}

// open returns a tree for use. NotFound: it isn't in the cache.
func (c Cache) open(name string) (*Tree, error) {
	// an exclusive lock is held only for a moment
	t, err := lock(filepath.Join(c.Dir, name), unix.LOCK_SH)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.NotFound, "no tree %s in the cache", name)
	}
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err, "use the cache of trees")
	}
	now := time.Now()
	if err := os.Chtimes(t.use.Name(), now, now); err != nil {
		return nil, errors.Join(errs.Wrap(errs.Unavailable, err, "use the cache of trees"),
			t.Close())
	}
	return t, nil
}

// lock locks a directory of the cache, in the mode how of flock(2). fs.ErrNotExist: it has been
// removed.
func lock(dir string, how int) (*Tree, error) {
	use, err := os.OpenFile(filepath.Join(dir, useName), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(use.Fd()), how)
	if err == nil {
		var mine, there os.FileInfo
		if mine, err = use.Stat(); err == nil {
			if there, err = os.Stat(use.Name()); err == nil && !os.SameFile(mine, there) {
				err = fs.ErrNotExist // removed and made again in between
			}
		}
	}
	if err != nil {
		return nil, errors.Join(err, use.Close())
	}
	return &Tree{dir: dir, use: use}, nil
}

// add calls fill to make a tree, in a directory that doesn't exist yet, and returns it for use. An
// unfinished tree is never visible.
func (c Cache) add(name string, fill func(dir string) error) (*Tree, error) {
	done := filepath.Join(c.Dir, name)
	t := &Tree{dir: done + undone + strings.ToLower(rand.Text()[:8])}
	err := os.MkdirAll(t.dir, 0o755)
	if err == nil {
		t.use, err = os.OpenFile(filepath.Join(t.dir, useName),
			os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err == nil {
		err = unix.Flock(int(t.use.Fd()), unix.LOCK_SH)
	}
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err, "make room in the cache of trees")
	}
	if err := c.finish(t, fill); err != nil {
		return nil, errors.Join(err, t.Close(), os.RemoveAll(t.dir))
	}
	err = os.Rename(t.dir, done)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) { // another one was faster
		if err := errors.Join(t.Close(), os.RemoveAll(t.dir)); err != nil {
			return nil, errs.Wrap(errs.Unavailable, err, "remove a tree that is there already")
		}
		return c.open(name)
	}
	if err != nil {
		return nil, errors.Join(errs.Wrap(errs.Unavailable, err, "keep the tree"), t.Close(),
			os.RemoveAll(t.dir))
	}
	t.dir = done
	return t, nil
}

func (c Cache) finish(t *Tree, fill func(dir string) error) error {
	if err := fill(t.Dir()); err != nil {
		return err
	}
	bytes, err := diskUsage(t.Dir())
	if err == nil {
		_, err = t.use.WriteString(strconv.FormatInt(bytes, 10))
	}
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "measure the tree")
	}
	return nil
}

// diskUsage returns the disk space of a tree, in bytes.
func diskUsage(dir string) (int64, error) {
	var total int64
	seen := map[inode]bool{}
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if id := (inode{st.Dev, st.Ino}); ok && !seen[id] {
			seen[id] = st.Nlink > 1
			total += st.Blocks * 512
		}
		return nil
	})
	return total, err
}

// List returns the trees of the cache, the most recently used first. A tree that is being made has
// no size yet.
func (c Cache) List() ([]Cached, error) {
	entries, err := os.ReadDir(c.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err, "read the cache of trees")
	}
	var all []Cached
	for _, e := range entries {
		use := filepath.Join(c.Dir, e.Name(), useName)
		info, err := os.Stat(use)
		if err != nil {
			continue // it goes just now, or is nothing of ours
		}
		text, err := os.ReadFile(use)
		if err != nil {
			continue
		}
		one := Cached{Name: e.Name(), Used: info.ModTime()}
		one.Bytes, _ = strconv.ParseInt(string(text), 10, 64) // nothing while it is made
		if t, err := lock(filepath.Join(c.Dir, e.Name()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err,
			unix.EWOULDBLOCK) {
			one.InUse = true
		} else if err == nil {
			_ = t.Close()
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Cached) int {
		return cmp.Or(b.Used.Compare(a.Used),
			cmp.Compare(a.Name, b.Name))
	})
	return all, nil
}

// Prune removes the least recently used trees until the rest is within the limit, and unfinished
// trees of processes that have died. It keeps trees in use, and returns what it has removed.
func (c Cache) Prune() ([]Cached, error) {
	if c.Limit <= 0 {
		return nil, nil
	}
	return c.prune(c.Limit)
}

// Clear removes all trees that aren't in use, and returns them.
func (c Cache) Clear() ([]Cached, error) { return c.prune(0) }

func (c Cache) prune(limit int64) ([]Cached, error) {
	all, err := c.List()
	if err != nil {
		return nil, err
	}
	var removed []Cached
	var kept int64
	for _, one := range all {
		if !strings.Contains(one.Name, undone) && kept+one.Bytes <= limit {
			kept += one.Bytes
			continue
		}
		gone, err := c.remove(one.Name)
		if err != nil {
			return removed, err
		}
		if gone {
			removed = append(removed, one)
		} else {
			kept += one.Bytes
		}
	}
	return removed, nil
}

// remove removes a tree unless it is in use.
func (c Cache) remove(name string) (bool, error) {
	dir := filepath.Join(c.Dir, name)
	t, err := lock(dir, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, errs.Wrap(errs.Unavailable, err, "remove a cached tree")
	}
	going := dir
	// from now on nobody finds it, and its remains are recognized as such
	if !strings.Contains(name, undone) {
		going = dir + undone + strings.ToLower(rand.Text()[:8])
		err = os.Rename(dir, going)
	}
	if err = errors.Join(err, os.RemoveAll(going), t.Close()); err != nil {
		return false, errs.Wrap(errs.Unavailable, err, "remove a cached tree")
	}
	return true, nil
}
