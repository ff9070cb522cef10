package qemu

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	initPath   = "usr/bin/sluice-init" // in a release
	kernelPath = "boot/vmlinux"
	initrdPath = "boot/initramfs"

	cacheKept = 4 // files of each kind; those in use live on without their names

	unfinished    = ".new-*"  // files that somebody is at, or was when it died
	unfinishedFor = time.Hour // since they were last written to
)

// guest has the files from which the VMs of a release are made.
type guest struct {
	Kernel, Initrd string // files
	KernelID       string // hash of the two, for what is known of them
	Image          string // the release as an ext4 file
	Accel          accel
}

// guestOf returns a release's guest, and makes the files of it that are missing.
func (d *Driver) guestOf(ctx context.Context, release string) (guest, error) {
	g, err := kernelOf(release)
	if err != nil {
		return g, err
	}
	if g.Image, err = d.releaseImage(ctx, release); err != nil {
		return g, err
	}
	g.Accel, err = d.accelFor(ctx, g)
	return g, err
}

// kernelOf returns the part of a release's guest that boots.
func kernelOf(release string) (g guest, err error) {
	g = guest{Kernel: filepath.Join(release, kernelPath),
		Initrd: filepath.Join(release, initrdPath)}
	g.KernelID, err = stamp(g.Kernel, g.Initrd)
	return g, err
}

// stamp identifies files without reading them: a release is not changed in place.
func stamp(files ...string) (string, error) {
	h := sha256.New()
	for _, file := range files {
		st, err := os.Lstat(file)
		if err != nil {
			return "", errs.Wrap(errs.Invalid, err, "look at the release's %s", filepath.Base(file))
		}
		fmt.Fprintf(h, "%s %d %o %d\n", file, st.Size(), st.Mode(), st.ModTime().UnixNano())
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// releaseImage returns a file with a release as an ext4 file system, made if it is missing. The
// same tree always gives the same bytes.
func (d *Driver) releaseImage(ctx context.Context, release string) (string, error) {
	var files []string
	var size int64
	err := filepath.WalkDir(release, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		files = append(files, path)
		if info, err := e.Info(); err == nil {
			size += info.Size() + 4096
		}
		return nil
	})
	if err != nil {
		return "", errs.Wrap(errs.Invalid, err, "read release %s", release)
	}
	sort.Strings(files)
	id, err := stamp(files...)
	if err != nil {
		return "", err
	}
	path := filepath.Join(d.cfg.CacheDir, "release-"+id+".ext4")
	err = d.once(ctx, "make the release's image", func() error {
		if touch(path) == nil {
			return nil
		}
		if err := d.makeWhole(path, func(tmp string) error {
			return makeImage(ctx, release, tmp,
				size+size/8+(16<<20))
		}); err != nil {
			return errs.Wrap(errs.Internal, err, "make an image of release %s", release)
		}
		d.prune("release-*")
		return nil
	})
	return path, err
}

func makeImage(ctx context.Context, release, path string, size int64) error {
	mkfs, err := lookPath("mkfs.ext4")
	if err != nil {
		return err
	}
	// the same in all: the content tells them apart
	const id = "d2f5c7a0-51ce-4000-8000-000000000001"
	cmd := exec.CommandContext(ctx, mkfs, "-q", "-F", "-b", "4096", "-O",
		"^has_journal,^resize_inode", "-m", "0", "-N", "4096",
		"-U", id, "-E", "hash_seed="+id+",lazy_itable_init=0,root_owner=0:0", "-d", release, path,
		fmt.Sprintf("%dk", size>>10))
	cmd.Env = []string{"E2FSPROGS_FAKE_TIME=1", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// makeWhole calls make to write a file, which gets its name only when it is complete.
func (d *Driver) makeWhole(path string, fill func(tmp string) error) error {
	f, err := os.CreateTemp(d.cfg.CacheDir, unfinished)
	if err != nil {
		return err
	}
	tmp := f.Name()
	if err := errors.Join(f.Close(), fill(tmp)); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return os.Rename(tmp, path)
}

// touch marks a cached file as used. It fails if the file doesn't exist.
func touch(path string) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, nil, 0)
}

// prune removes the files of a kind that were used least recently, and what was never finished.
func (d *Driver) prune(pattern string) {
	// the pattern is well-formed
	torn, _ := filepath.Glob(filepath.Join(d.cfg.CacheDir, unfinished))
	for _, f := range torn {
		if st, err := os.Stat(f); err == nil && time.Since(st.ModTime()) > unfinishedFor {
			_ = os.Remove(f) // or next time
		}
	}
	found, _ := filepath.Glob(filepath.Join(d.cfg.CacheDir, pattern)) // the pattern is well-formed
	age := map[string]int64{}
	for _, f := range found {
		if st, err := os.Stat(f); err == nil {
			age[f] = st.ModTime().UnixNano()
		}
	}
	sort.Slice(found, func(i, j int) bool { return age[found[i]] > age[found[j]] })
	for _, f := range found[min(len(found), cacheKept):] {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.cfg.Logger.WarnContext(d.vms.Open(), "cache file can't be removed", "file",
				f, "error", err)
		}
	}
}

// tail returns the last lines of a file, for an error message.
func tail(path string, lines int) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	const most = 4096
	if st, err := f.Stat(); err == nil && st.Size() > most {
		_, _ = f.Seek(-most, io.SeekEnd)
	}
	b, _ := io.ReadAll(io.LimitReader(f, most))
	all := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(b), "\r", "")), "\n")
	return strings.Join(all[max(0, len(all)-lines):], " / ")
}
