package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/runtime"
	"github.com/sluice-platform/sluice/internal/runtime/guestroot"
	"github.com/sluice-platform/sluice/internal/runtime/qemu/bootdisk"
)

const (
	newRoot    = "/newroot"
	releaseDir = "/release"
)

// mountKernelFiles mounts what the kernel shows of itself below root.
func mountKernelFiles(root string) error {
	return errors.Join(
		guestroot.Mount("devtmpfs", filepath.Join(root, "dev"), "devtmpfs",
			guestroot.Device, "mode=755"),
		guestroot.Mount("proc", filepath.Join(root, "proc"), "proc", guestroot.NoProgram, ""),
		guestroot.Mount("sysfs", filepath.Join(root, "sys"), "sysfs", guestroot.NoProgram, ""),
	)
}

// makeRoot builds the VM's root, as a sandbox VM has it: a tmpfs with the release's directories in
// it, read-only.
func makeRoot() error {
	if err := guestroot.Mount("tmpfs", newRoot, "tmpfs", unix.MS_NOSUID, "mode=755"); err != nil {
		return err
	}
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "root", "mnt",
		"var/tmp", "etc"} {
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
	if err := guestroot.Mount("cgroup2", cgroups, "cgroup2", guestroot.NoProgram, ""); err != nil {
		return err
	}
	if err := firstMemoryCgroup(cgroups); err != nil {
		return fmt.Errorf("make a first memory cgroup: %w", err)
	}
	return guestroot.Mount("tmpfs", filepath.Join(newRoot, "run"), "tmpfs",
		unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
}

// firstMemoryCgroup makes a memory cgroup and removes it. With the first one the kernel patches its
// own code, where memory is allocated. On a processor that QEMU 7.2 emulates and that runs this
// code just then, the kernel may hang at a stale breakpoint: one VM in 75 did, when the container
// made the first cgroup. Here nothing else runs.
func firstMemoryCgroup(cgroups string) error {
	control, first := filepath.Join(cgroups, "cgroup.subtree_control"),
		filepath.Join(cgroups, "first")
	return errors.Join(os.WriteFile(control, []byte("+memory"), 0), os.Mkdir(first, 0o755),
		os.Remove(first),
		os.WriteFile(control, []byte("-memory"), 0))
}

// addRelease shows the directories of the release's disk at the same places, and completes the
// links of a merged /usr. The kernel that is in a release too has done its work.
func addRelease() error {
	disk, err := diskWith(bootdisk.SerialRelease)
	if err != nil {
		return err
	}
	if err := guestroot.Mount(disk, releaseDir, "ext4", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV,
		"noload"); err != nil {
		return err
	}
	return guestroot.AddRelease(newRoot, releaseDir,
		func(from, to string) error { return guestroot.Mount(from, to, "", unix.MS_BIND, "") })
}

// completeDev adds to /dev what the kernel doesn't make by itself.
func completeDev(dev string) error {
	cache, err := diskWith(bootdisk.SerialCache)
	if err == nil {
		err = os.Symlink(filepath.Base(cache), filepath.Join(newRoot, runtime.CacheDevice))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return guestroot.CompleteDev(dev)
}

// switchRoot makes newRoot the root of everything. The initramfs, which can't be left, stays below
// it, empty.
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
