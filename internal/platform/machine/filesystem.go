package machine

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/guestapi/diskbroker"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// fileSystem is that of the machine's disk, mounted on a directory of the VM. What it does takes
// the privileges of the kernel's owner.
type fileSystem interface {
	// mount mounts it without barriers, unless it is mounted already.
	mount(ctx context.Context, device string) error
	// setBarriers switches barriers; nothing is done if it isn't mounted.
	setBarriers(on bool) error
	// grow grows it to its disk, and returns how large it was, and could be; also where it fails
	// to grow.
	grow(ctx context.Context, device string) (has, could int64, err error)
	// unmount unmounts it, and returns when nobody has a mount of it any more.
	unmount(ctx context.Context, device string) error
	// drop lets go of it without waiting for who uses it.
	drop() error
}

// fileSystemAt returns the file system on dir: the broker's to mount, or this VM's own.
func fileSystemAt(dir string, broker *diskbroker.Client) fileSystem {
	if broker == nil {
		return ownFileSystem(dir)
	}
	return brokered{dir: dir, broker: broker}
}

// ownFileSystem is for a VM that has a kernel of its own.
type ownFileSystem string

func (dir ownFileSystem) mount(ctx context.Context, device string) error {
	return frontend.MountMachine(ctx, device, string(dir))
}

func (dir ownFileSystem) setBarriers(on bool) error { return frontend.SetBarriers(string(dir), on) }

func (dir ownFileSystem) grow(_ context.Context, device string) (has, could int64, err error) {
	if has, could, err = frontend.Ext4Bytes(device); err != nil {
		return 0, 0, err
	}
	_, err = frontend.GrowExt4(device, string(dir))
	return has, could, err
}

func (dir ownFileSystem) unmount(ctx context.Context, device string) error {
	return frontend.UnmountMachine(ctx, string(dir), device)
}

func (dir ownFileSystem) drop() error { return unix.Unmount(string(dir), unix.MNT_DETACH) }

// brokered is for a VM with a broker. The broker has a mount of its own, of which it gives out
// copies.
type brokered struct {
	dir    string
	broker *diskbroker.Client
}

func (b brokered) mount(ctx context.Context, _ string) error {
	if err := os.MkdirAll(b.dir,
		0o755); err != nil { //nolint:gosec // the container's root passes through it
		return fmt.Errorf("make mount point: %w", err)
	}
	mounted, err := frontend.IsMountPoint(b.dir)
	if err != nil || mounted {
		return err
	}
	tree, err := b.broker.Mount(ctx)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, b.dir,
		unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return errs.Wrap(errs.Unavailable, err, "attach the machine's disk")
	}
	return nil
}

func (b brokered) setBarriers(on bool) error { return b.broker.Barriers(on) }

func (b brokered) grow(ctx context.Context, _ string) (has, could int64, err error) {
	return b.broker.Grow(ctx)
}

func (b brokered) unmount(ctx context.Context, _ string) error {
	if err := frontend.UnmountBusy(ctx, b.dir); err != nil {
		return err
	}
	return b.broker.Unmount(ctx)
}

func (b brokered) drop() error {
	return errors.Join(unix.Unmount(b.dir, unix.MNT_DETACH), b.broker.Drop())
}
