package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/runtime/qemu/bootdisk"
)

const (
	newRoot    = "/newroot"
	releaseDir = "/release"

	noProgram = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	device    = unix.MS_NOSUID | unix.MS_NOEXEC
)

// mountKernelFiles mounts what the kernel shows of itself below root.
func mountKernelFiles(root string) error {
	return errors.Join(
		mount("devtmpfs", filepath.Join(root, "dev"), "devtmpfs", device, "mode=755"),
		mount("proc", filepath.Join(root, "proc"), "proc", noProgram, ""),
		mount("sysfs", filepath.Join(root, "sys"), "sysfs", noProgram, ""),
	)
}

// makeRoot builds the VM's root, as a sandbox VM has it: a tmpfs with the release's directories in it, read-only.
func makeRoot() error {
	if err := mount("tmpfs", newRoot, "tmpfs", unix.MS_NOSUID, "mode=755"); err != nil {
		return err
	}
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "root", "mnt", "var/tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(newRoot, dir), 0o755); err != nil {
			return err
		}
	}
	for _, tmp := range []string{"tmp", "var/tmp"} {
		if err := os.Chmod(filepath.Join(newRoot, tmp), 0o777|fs.ModeSticky); err != nil {
			return err
		}
	}
	if err := mountKernelFiles(newRoot); err != nil {
		return err
	}
	if err := addRelease(); err != nil {
		return err
	}
	if err := completeDev(filepath.Join(newRoot, "dev")); err != nil {
		return err
	}
	cgroups := filepath.Join(newRoot, "sys/fs/cgroup")
	if err := mount("cgroup2", cgroups, "cgroup2", noProgram, ""); err != nil {
		return err
	}
	if err := firstMemoryCgroup(cgroups); err != nil {
		return fmt.Errorf("make a first memory cgroup: %w", err)
	}
	return mount("tmpfs", filepath.Join(newRoot, "run"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
}

// firstMemoryCgroup makes a memory cgroup and removes it. With the first one the kernel patches its own code, where memory is
// allocated; a processor that is emulated by QEMU 7.2 and runs that code just then may go on to see the breakpoint that is
// there meanwhile, and be stuck for ever: one VM in 75, when it was the container that came first. Here nothing else runs.
func firstMemoryCgroup(cgroups string) error {
	control, first := filepath.Join(cgroups, "cgroup.subtree_control"), filepath.Join(cgroups, "first")
	return errors.Join(os.WriteFile(control, []byte("+memory"), 0), os.Mkdir(first, 0o755), os.Remove(first),
		os.WriteFile(control, []byte("-memory"), 0))
}

// addRelease shows the directories of the release's disk at the same places, and completes the links of a merged
// /usr. The kernel that is in a release too has done its work.
func addRelease() error {
	disk, err := diskWith(bootdisk.SerialRelease)
	if err != nil {
		return err
	}
	if err := mount(disk, releaseDir, "ext4", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "noload"); err != nil {
		return err
	}
	entries, err := os.ReadDir(releaseDir)
	if err != nil {
		return fmt.Errorf("read release: %w", err)
	}
	others := []string{"dev", "proc", "sys", "run", "tmp", "boot", "lost+found"}
	for _, e := range entries {
		from, to := filepath.Join(releaseDir, e.Name()), filepath.Join(newRoot, e.Name())
		switch {
		case slices.Contains(others, e.Name()):
		case e.IsDir():
			if err := os.MkdirAll(to, 0o755); err != nil {
				return err
			}
			if err := mount(from, to, "", unix.MS_BIND, ""); err != nil {
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
		err := os.Symlink("usr/"+name, filepath.Join(newRoot, name))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// completeDev adds to /dev what the kernel doesn't make by itself.
func completeDev(dev string) error {
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2",
	} {
		if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	for _, dir := range []string{"pts", "shm", "mqueue"} {
		if err := os.MkdirAll(filepath.Join(dev, dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.Remove(filepath.Join(dev, "ptmx")); err != nil {
		return err
	}
	if err := os.Symlink("pts/ptmx", filepath.Join(dev, "ptmx")); err != nil {
		return err
	}
	cache, err := diskWith(bootdisk.SerialCache)
	if err == nil {
		err = os.Symlink(filepath.Base(cache), filepath.Join(newRoot, runtime.CacheDevice))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(
		mount("devpts", filepath.Join(dev, "pts"), "devpts", device, "newinstance,ptmxmode=0666,mode=0620,gid=5"),
		mount("tmpfs", filepath.Join(dev, "shm"), "tmpfs", noProgram, "mode=1777"),
		mount("mqueue", filepath.Join(dev, "mqueue"), "mqueue", noProgram, ""),
	)
}

// switchRoot makes newRoot the root of everything. The initramfs, which can't be left, stays below it, empty.
func switchRoot() error {
	for _, dir := range []string{"/dev", "/proc", "/sys"} {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
	if err := os.Remove("/init"); err != nil {
		return err
	}
	if err := unix.Chdir(newRoot); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	return unix.Chdir("/")
}

// mount is mount(2) with an error that says what was mounted where.
func mount(source, target, kind string, flags uintptr, options string) error {
	if err := unix.Mount(source, target, kind, flags, options); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	return nil
}
