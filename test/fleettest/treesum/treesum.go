//go:build linux

// Package treesum tells all that a file tree is in lines of text, so that a tree before a move and
// after it can be compared; and it makes a tree that has something of every kind. It runs inside
// machines and on closed disks.
package treesum

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Write writes a line for each file of the tree at root that is on root's own file system: type and
// mode, owner, links, size, modification time, extended attributes, what is in it, and its path
// from root. Of a directory neither size nor time is told: they change with what is in it, which is
// told. Paths (from root, with a leading slash) in except are left out.
func Write(w io.Writer, root string, except ...string) error {
	var top unix.Stat_t
	if err := unix.Lstat(root, &top); err != nil {
		return fmt.Errorf("look at %s: %w", root, err)
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return fmt.Errorf("look at %s: %w", path, err)
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if st.Dev != top.Dev || slices.Contains(except, "/"+rel) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		return line(w, path, "/"+rel, &st)
	})
}

func line(w io.Writer, path, name string, st *unix.Stat_t) error {
	size, changed := st.Size, fmt.Sprintf("%d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
	var content string
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		size, changed = 0, "-"
	case unix.S_IFREG:
		content, err = sum(path)
	case unix.S_IFLNK:
		content, err = os.Readlink(path)
	default:
		content = fmt.Sprintf("device %#x", st.Rdev)
	}
	if err != nil {
		return err
	}
	attrs, err := attributes(path)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%06o %d:%d links=%d size=%d mtime=%s xattrs=%s %s %q\n",
		st.Mode, st.Uid, st.Gid, st.Nlink, size, changed, attrs, content, name)
	return err
}

func sum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

// attributes are a file's extended attributes, sorted by name; "-" for none.
func attributes(path string) (string, error) {
	list := make([]byte, 1<<16)
	n, err := unix.Llistxattr(path, list)
	if err != nil && !errors.Is(err, unix.ENOTSUP) {
		return "", fmt.Errorf("list attributes of %s: %w", path, err)
	}
	names := slices.DeleteFunc(bytes.Split(list[:max(n, 0)], []byte{0}),
		func(b []byte) bool { return len(b) == 0 })
	slices.SortFunc(names, bytes.Compare)
	out := "-"
	for _, name := range names {
		value := make([]byte, 1<<16)
		n, err := unix.Lgetxattr(path, string(name), value)
		if err != nil {
			return "", fmt.Errorf("read attribute %s of %s: %w", name, path, err)
		}
		out += fmt.Sprintf("%s=%x;", name, value[:n])
	}
	return out, nil
}

// Plant makes a tree in dir, which must not exist: files of many sizes with random bytes, owners,
// modes and times, hard and symbolic links, a sparse file, a pipe, and extended attributes. It is
// all on the disk when Plant returns.
func Plant(dir string, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 0))
	bytesOf := rand.NewChaCha8([32]byte{byte(seed)})
	for i := range 100 {
		sub := filepath.Join(dir, fmt.Sprintf("d%d", i%7), fmt.Sprintf("e%d", i%5))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return err
		}
		path := filepath.Join(sub, fmt.Sprintf("f%d", i))
		body := make([]byte, []int{0, 1, 100, 4096, 5000, 70_000, 300_000}[i%7]+rng.IntN(64))
		_, _ = bytesOf.Read(body) // never fails
		if err := os.WriteFile(path, body, 0o600); err != nil {
			return err
		}
		modes := []os.FileMode{0o644, 0o600, 0o755, 0o755 | os.ModeSetuid, 0o440,
			0o777 | os.ModeSticky}
		err := errors.Join(
			os.Link(path, filepath.Join(sub, fmt.Sprintf("hard%d", i))),
			// some dangle
			os.Symlink(fmt.Sprintf("f%d", rng.IntN(130)),
				filepath.Join(sub, fmt.Sprintf("soft%d", i))),
			unix.Setxattr(path, "user.number", fmt.Append(nil, i), 0),
			os.Chown(path, rng.IntN(2000), rng.IntN(2000)),
			os.Chmod(path, modes[i%len(modes)]),
		)
		if err != nil {
			return err
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o620); err != nil {
		return err
	}
	sparse, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		return err
	}
	_, err = sparse.WriteAt([]byte("end"), 2<<20)
	if err == nil {
		err = unix.Syncfs(int(sparse.Fd()))
	}
	return errors.Join(err, sparse.Close())
}
