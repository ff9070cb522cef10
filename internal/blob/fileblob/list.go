package fileblob

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// List implements blob.Store. It reads one directory at a time, and none that can hold no match.
func (s *Store) List(ctx context.Context, prefix, startAfter string,
	yield func(blob.Entry) bool) error {
	dir := "" // the directory, with its slash, that all matches are in
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		dir = prefix[:i+1]
		if err := blob.CheckKey(prefix[:i]); err != nil {
			return err
		}
	}
	l := lister{ctx: ctx, root: s.root, prefix: prefix, startAfter: startAfter, yield: yield}
	_, err := l.walk(dir)
	return err
}

type lister struct {
	ctx                      context.Context
	root, prefix, startAfter string
	yield                    func(blob.Entry) bool
}

// walk lists the directory dir ("" or with a slash at its end) and reports whether to go on.
func (l *lister) walk(dir string) (more bool, err error) {
	if err := l.ctx.Err(); err != nil {
		return false, errs.Wrap(errs.Unavailable, err, "list %q", l.prefix)
	}
	entries, err := os.ReadDir(l.root + "/" + dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return true, nil
	}
	if err != nil {
		return false, failure(err, "list %q", l.prefix)
	}
	for _, key := range l.candidates(dir, entries) {
		if strings.HasSuffix(key, "/") {
			more, err = l.walk(key)
		} else {
			more, err = l.emit(key)
		}
		if err != nil || !more {
			return false, err
		}
	}
	return true, nil
}

// candidates returns the keys in a directory, those of directories with a slash at the end, in the
// order of the keys that they are or begin: "a-b" comes before the content of "a/".
func (l *lister) candidates(dir string, entries []fs.DirEntry) []string {
	keys := make([]string, 0, len(entries))
	for _, e := range entries {
		key := dir + e.Name()
		switch {
		case key == privateDir:
		case e.IsDir():
			key += "/"
			matches := strings.HasPrefix(key, l.prefix) || strings.HasPrefix(l.prefix, key)
			passed := key < l.startAfter && !strings.HasPrefix(l.startAfter, key)
			if matches && !passed {
				keys = append(keys, key)
			}
		case e.Type().IsRegular() && strings.HasPrefix(key, l.prefix) && key > l.startAfter:
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

func (l *lister) emit(key string) (more bool, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(l.root+"/"+key, &st); err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return true, nil // deleted since the directory was read
		}
		return false, failure(err, "list %q", l.prefix)
	}
	return l.yield(blob.Entry{Key: key, Size: st.Size}), nil
}
