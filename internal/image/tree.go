package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const xattrRecord = "SCHILY.xattr." // of a PAX header

// tree is a directory into which archives are unpacked. The kernel resolves every name as if the
// directory were the root (RESOLVE_IN_ROOT), so no link leads out of it.
type tree struct {
	path   string
	root   int
	bounds // what may still be made

	times map[string]time.Time // of directories; set last, since every entry in one changes it
}

func openTree(dir string, limit bounds) (*tree, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err, "open %s", dir)
	}
	return &tree{path: dir, root: fd, bounds: limit, times: map[string]time.Time{}}, nil
}

func (t *tree) close() { release(t.root) }

// finish sets the times of the directories.
func (t *tree) finish() error {
	for name, when := range t.times {
		dir, err := t.open(name, unix.O_PATH|unix.O_DIRECTORY)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue // removed by a later layer
		}
		if err != nil {
			return err
		}
		err = os.Chtimes(procPath(dir), when, when)
		if err := errors.Join(err, unix.Close(dir)); err != nil {
			return err
		}
	}
	return nil
}

// clean returns an archive's name as a path in the tree, without a slash in front; "" is the tree
// itself.
func clean(name string) (string, error) {
	for element := range strings.SplitSeq(name, "/") {
		if element == ".." {
			return "", errs.New(errs.Invalid,
				"archive entry %q has a parent directory in its name", name)
		}
	}
	if strings.IndexByte(name, 0) >= 0 {
		return "", errs.New(errs.Invalid, "archive entry %q has a NUL in its name", name)
	}
	return strings.TrimPrefix(path.Clean("/"+name), "/"), nil
}

// open opens a path in the tree.
func (t *tree) open(name string, flags uint64) (int, error) {
	if name == "" {
		name = "."
	}
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(t.root, name, &how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

// parent opens the directory that name is in, made if it is missing, and returns the last element
// too.
func (t *tree) parent(name string) (dir int, base string, err error) {
	dirName, base := path.Split(name)
	dirName = strings.TrimSuffix(dirName, "/")
	dir, err = t.open(dirName, unix.O_PATH|unix.O_DIRECTORY)
	if !errors.Is(err, unix.ENOENT) || dirName == "" {
		return dir, base, err
	}
	up, dirBase, err := t.parent(dirName)
	if err != nil {
		return -1, "", err
	}
	if err = t.entry(1); err == nil {
		err = unix.Mkdirat(up, dirBase, 0o755)
	}
	release(up)
	// EEXIST: a dangling link, which the next open tells
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, "", err
	}
	dir, err = t.open(dirName, unix.O_PATH|unix.O_DIRECTORY)
	return dir, base, err
}

// put makes one entry of an archive, and replaces what is there.
func (t *tree) put(h *tar.Header, name string, content io.Reader) error {
	if name == "" {
		return t.putSelf(h)
	}
	dir, base, err := t.parent(name)
	if err != nil {
		return fmt.Errorf("directory of %s: %w", name, err)
	}
	defer release(dir)
	if err := clear(dir, base, h.Typeflag == tar.TypeDir); err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	if err := t.make(dir, base, h, content); err != nil {
		return fmt.Errorf("make %s: %w", name, err)
	}
	if h.Typeflag == tar.TypeLink {
		return nil // its attributes are the target's
	}
	if h.Typeflag == tar.TypeDir {
		t.times[name] = h.ModTime
	}
	if err := t.setAttributes(dir, base, h); err != nil {
		return fmt.Errorf("attributes of %s: %w", name, err)
	}
	return nil
}

// putSelf gives the tree's own directory its attributes.
func (t *tree) putSelf(h *tar.Header) error {
	if h.Typeflag != tar.TypeDir {
		return errs.New(errs.Invalid, "archive entry %q is not a directory", h.Name)
	}
	t.times[""] = h.ModTime
	return t.setAttributes(t.root, ".", h)
}

// clear removes what is in the place of a new entry. A directory isn't removed for a directory.
func clear(dir int, base string, forDirectory bool) error {
	var st unix.Stat_t
	err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if isDir && forDirectory {
		return nil
	}
	return remove(dir, base)
}

func remove(dir int, base string) error {
	// RemoveAll follows no links below the one directory that it is given.
	return os.RemoveAll(procPath(dir) + "/" + base)
}

func (t *tree) make(dir int, base string, h *tar.Header, content io.Reader) error {
	mode := uint32(h.Mode) & 0o7777
	switch h.Typeflag {
	case tar.TypeDir:
		if err := unix.Mkdirat(dir, base, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		return nil
	case tar.TypeReg:
		return t.makeFile(dir, base, h, content)
	case tar.TypeSymlink:
		return unix.Symlinkat(h.Linkname, dir, base)
	case tar.TypeLink:
		return t.link(dir, base, h.Linkname)
	case tar.TypeChar:
		return unix.Mknodat(dir, base, unix.S_IFCHR|mode,
			int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
	case tar.TypeBlock:
		return unix.Mknodat(dir, base, unix.S_IFBLK|mode,
			int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
	case tar.TypeFifo:
		return unix.Mknodat(dir, base, unix.S_IFIFO|mode, 0)
	default:
		return errs.New(errs.Unsupported, "archive entry of type %q", h.Typeflag)
	}
}

func (t *tree) makeFile(dir int, base string, h *tar.Header, content io.Reader) error {
	if err := t.content(h.Size); err != nil {
		return err
	}
	fd, err := unix.Openat(dir, base,
		unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	return errors.Join(t.copyTo(f, content), f.Close())
}

// link makes a hard link to another entry of the tree.
func (t *tree) link(dir int, base, target string) error {
	name, err := clean(target)
	if err != nil {
		return err
	}
	targetDir, targetBase, err := t.parent(name)
	if err != nil {
		return err
	}
	defer release(targetDir)
	return unix.Linkat(targetDir, targetBase, dir, base, 0)
}

// setAttributes sets owner, mode, extended attributes and time, in the order in which none undoes
// another.
func (t *tree) setAttributes(dir int, base string, h *tar.Header) error {
	// which means "as it is" to the kernel, and whose successors are root again
	const top = 1<<32 - 1
	if h.Uid < 0 || h.Uid >= top || h.Gid < 0 || h.Gid >= top {
		return errs.New(errs.Invalid, "owner %d:%d", h.Uid, h.Gid).
			WithRemedy("give the file another owner")
	}
	if err := unix.Fchownat(dir, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	name := procPath(dir) + "/" + base
	if h.Typeflag != tar.TypeSymlink {
		if err := unix.Chmod(name, uint32(h.Mode)&0o7777); err != nil {
			return err
		}
	}
	taken := 0
	for record, value := range h.PAXRecords {
		if strings.HasPrefix(record, xattrRecord) {
			taken += len(record) + len(value)
		}
	}
	if err := t.attributes(taken); err != nil {
		return err
	}
	for record, value := range h.PAXRecords {
		if attr, ok := strings.CutPrefix(record, xattrRecord); ok {
			if err := unix.Lsetxattr(name, attr, []byte(value), 0); err != nil {
				return fmt.Errorf("%s: %w", attr, err)
			}
		}
	}
	when := unix.NsecToTimespec(h.ModTime.UnixNano())
	if h.ModTime.IsZero() {
		when = unix.Timespec{}
	}
	return unix.UtimesNanoAt(dir, base, []unix.Timespec{when, when}, unix.AT_SYMLINK_NOFOLLOW)
}

func procPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// release closes a descriptor through which nothing was written.
func release(fd int) { _ = unix.Close(fd) }
