package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Pack writes a directory as a tar stream, with owners, extended attributes, hard links and device
// nodes, in the order of names. It is how a tree gets to a server that builds the image. Sockets
// are left out.
func Pack(ctx context.Context, dir string, w io.Writer) error {
	p := packer{ctx: ctx, dir: dir, out: tar.NewWriter(w), links: map[inode]string{}}
	if err := filepath.WalkDir(dir, p.entry); err != nil {
		return err
	}
	if err := p.out.Close(); err != nil {
		return errs.Wrap(errs.Unavailable, err, "write the archive")
	}
	return nil
}

type inode struct{ dev, ino uint64 }

type packer struct {
	ctx   context.Context
	dir   string
	out   *tar.Writer
	links map[inode]string // the first name of each file that has several
}

func (p *packer) entry(path string, _ fs.DirEntry, err error) error {
	if err == nil {
		err = p.ctx.Err()
	}
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "pack %s", p.dir)
	}
	name, err := filepath.Rel(p.dir, path)
	if err != nil {
		return errs.Wrap(errs.Internal, err, "pack %s", path)
	}
	info, err := os.Lstat(path)
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "pack %s", p.dir)
	}
	if info.Mode()&fs.ModeSocket != 0 {
		return nil
	}
	h, err := p.header(path, name, info)
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "pack %s", path)
	}
	if err := p.out.WriteHeader(h); err != nil {
		return errs.Wrap(errs.Unavailable, err, "pack %s", path)
	}
	if h.Typeflag == tar.TypeReg && h.Size > 0 {
		if err := p.content(path); err != nil {
			return errs.Wrap(errs.Unavailable, err, "pack %s", path)
		}
	}
	return nil
}

func (p *packer) header(path, name string, info fs.FileInfo) (*tar.Header, error) {
	target := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		var err error
		if target, err = os.Readlink(path); err != nil {
			return nil, err
		}
	}
	h, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return nil, err
	}
	h.Name = name
	if info.IsDir() {
		h.Name += "/"
	}
	h.Uname, h.Gname = "", ""                             // numbers are what counts inside
	h.AccessTime, h.ChangeTime = time.Time{}, time.Time{} // they'd differ each time
	h.Format = tar.FormatPAX
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, err
	}
	if id := (inode{st.Dev, st.Ino}); info.Mode().IsRegular() && st.Nlink > 1 {
		if first, ok := p.links[id]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return h, nil
		}
		p.links[id] = name
	}
	h.PAXRecords, err = attributes(path)
	return h, err
}

// attributes returns a file's extended attributes as PAX records.
func attributes(path string) (map[string]string, error) {
	list, err := readAttr(func(p []byte) (int, error) { return unix.Llistxattr(path, p) })
	if err != nil {
		return nil, fmt.Errorf("list attributes: %w", err)
	}
	records := map[string]string{}
	for name := range strings.SplitSeq(string(list), "\x00") {
		if name == "" {
			continue
		}
		value, err := readAttr(func(p []byte) (int, error) { return unix.Lgetxattr(path, name, p) })
		if err != nil {
			return nil, fmt.Errorf("attribute %s: %w", name, err)
		}
		records[xattrRecord+name] = string(value)
	}
	return records, nil
}

// readAttr calls read with a buffer that is large enough.
func readAttr(read func([]byte) (int, error)) ([]byte, error) {
	for size := 256; ; size *= 4 {
		p := make([]byte, size)
		n, err := read(p)
		switch {
		case err == nil:
			return p[:n], nil
		case errors.Is(err, unix.ENOTSUP):
			return nil, nil
		case !errors.Is(err, unix.ERANGE) || size > 1<<20:
			return nil, err
		}
	}
}

func (p *packer) content(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(p.out, f) // a file that has changed its size fails here or at the next header
	return err
}
