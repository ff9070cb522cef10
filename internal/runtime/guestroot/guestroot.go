// Package guestroot makes the parts of a VM's root directory that are the same under every runtime,
// whether the VM has a kernel of its own or not. Its functions run where that root is made, before
// anything else runs there.
package guestroot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Flags of the file systems in a VM's root.
const (
	Device    = unix.MS_NOSUID | unix.MS_NOEXEC // has device nodes
	NoProgram = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
)

// made lists the directories of a release that a VM doesn't get: it has its own of these, and needs
// the release's kernel no more.
var made = []string{"dev", "proc", "sys", "run", "tmp", "boot", "lost+found"}

// AddRelease makes the directories of a release visible in root, at the same places. It calls bind
// for each, with existing directories, and completes the links of a merged /usr.
func AddRelease(root, release string, bind func(from, to string) error) error {
	entries, err := os.ReadDir(release)
	if err != nil {
		return fmt.Errorf("read release: %w", err)
	}
	for _, e := range entries {
		from, to := filepath.Join(release, e.Name()), filepath.Join(root, e.Name())
		switch {
		case slices.Contains(made, e.Name()):
		case e.IsDir():
			if err := os.MkdirAll(to, 0o755); err != nil {
				return err
			}
			if err := bind(from, to); err != nil {
				return err
			}
		case e.Type() == fs.ModeSymlink:
			target, err := os.Readlink(from)
			if err != nil {
				return err
			}
			if err := os.Symlink(target, to); err != nil {
				return err
			}
		}
	}
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		err := os.Symlink("usr/"+name, filepath.Join(root, name))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// CompleteDev adds to a /dev with device nodes what no kernel makes by itself: links, terminals,
// shared memory and queues. It is LinkDev and MountDev.
func CompleteDev(dev string) error {
	if err := LinkDev(dev); err != nil {
		return err
	}
	return MountDev(dev)
}

// LinkDev adds the links to a /dev, and the directories for MountDev.
func LinkDev(dev string) error {
	if err := os.Remove(filepath.Join(dev, "ptmx")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for name, target := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1",
		"stderr": "fd/2",
	} {
		if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	for _, name := range []string{"pts", "shm", "mqueue"} {
		if err := os.MkdirAll(filepath.Join(dev, name), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// MountDev mounts terminals, shared memory and queues in a /dev.
func MountDev(dev string) error {
	return errors.Join(
		Mount("devpts", filepath.Join(dev, "pts"), "devpts", Device,
			"newinstance,ptmxmode=0666,mode=0620,gid=5"),
		Mount("tmpfs", filepath.Join(dev, "shm"), "tmpfs", NoProgram, "mode=1777"),
		Mount("mqueue", filepath.Join(dev, "mqueue"), "mqueue", NoProgram, ""),
	)
}

// Mount is mount(2) with an error that says what was mounted where.
func Mount(source, target, kind string, flags uintptr, options string) error {
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		what := strings.TrimSpace(kind + " " + source)
		return fmt.Errorf("mount %s on %s (options %q): %w", what, target, options, err)
	}
	return nil
}
