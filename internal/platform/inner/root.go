package inner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// kernelDirs are the mounts that the container brings along into the machine's root.
func kernelDirs() []string { return []string{"proc", "sys", "dev"} }

// enterRoot makes the file tree at disk the root of the container, under the container's ids. It
// can't be repeated: if it fails, the container must be made again.
func (c *Container) enterRoot(ctx context.Context, disk, hostname string) error {
	if err := ensureKernelDirs(disk); err != nil {
		return err
	}
	tree, err := c.mappedTree(ctx, disk)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return within(c.pid, []string{"mnt", "uts"}, func() error {
		if err := unix.Sethostname([]byte(hostname)); err != nil {
			return fmt.Errorf("set hostname: %w", err)
		}
		return pivot(tree)
	})
}

// ensureKernelDirs makes sure that the mount points in the machine's root are real directories.
// Through a link, a mount could land anywhere.
func ensureKernelDirs(disk string) error {
	root, err := os.OpenRoot(disk)
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "open the disk's root")
	}
	defer root.Close()
	for _, d := range kernelDirs() {
		info, err := root.Lstat(d)
		if errors.Is(err, os.ErrNotExist) {
			if err := root.Mkdir(d, 0o755); err != nil {
				return errs.Wrap(errs.Unavailable, err, "make /%s", d)
			}
			continue
		}
		if err != nil {
			return errs.Wrap(errs.Unavailable, err, "look at /%s", d)
		}
		if !info.IsDir() {
			return errs.New(errs.Invalid, "/%s on the machine's disk is not a directory", d).
				WithRemedy("remove it from a fork of the disk, and start from that")
		}
	}
	return nil
}

// mappedTree returns a detached mount of the disk at dir, mapped to the container's user namespace.
func (c *Container) mappedTree(ctx context.Context, dir string) (int, error) {
	users, err := nsFile(c.pid, "user")
	if err != nil {
		return -1, err
	}
	defer users.Close()
	if c.cfg.Broker != nil {
		return c.cfg.Broker.Tree(ctx, users)
	}
	return frontend.MappedTree(dir, int(users.Fd()), //nolint:gosec // a descriptor
		unix.MOUNT_ATTR_NODEV)
}

// pivot runs on a thread inside the container's mount namespace. Nothing of the user's runs there
// yet, and the descriptors by which the mounts are placed don't follow links.
func pivot(tree int) error {
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, "/"+newRoot,
		unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach the machine's root: %w", err)
	}
	root, err := unix.Open("/"+newRoot, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the machine's root: %w", err)
	}
	defer unix.Close(root)
	for _, d := range kernelDirs() {
		if err := moveInto(root, d); err != nil {
			return err
		}
	}
	if err := unix.Fchdir(root); err != nil {
		return fmt.Errorf("enter the machine's root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("drop the first root: %w", err)
	}
	return nil
}

func moveInto(root int, dir string) error {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	target, err := unix.Openat2(root, dir, &how)
	if err != nil {
		return fmt.Errorf("open /%s of the machine: %w", dir, err)
	}
	defer unix.Close(target)
	if err := unix.MoveMount(unix.AT_FDCWD, "/"+dir, target, "",
		unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("move /%s: %w", dir, err)
	}
	return nil
}

// entered reports whether the container has left its first root.
func entered(pid int) bool {
	_, err := os.Lstat("/proc/" + strconv.Itoa(pid) + "/root/" + newRoot + "/../" + initBin)
	return errors.Is(err, os.ErrNotExist)
}
