package host

import (
	"context"
	"fmt"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// grow makes the disk larger, and the device that shows it. When it dies in between, the next
// attach shows the new size.
func (s *Session) grow(ctx context.Context, size int64) error {
	if err := s.writer.Grow(ctx, size); err != nil {
		return err
	}
	if s.front == nil {
		return nil
	}
	if err := s.front.Resize(); err != nil {
		return errs.Wrap(errs.KindOf(err), err, "the disk has grown, and %s has not",
			s.front.BlockDevice()).
			WithRemedy(
				"give the command again; or detach the disk and attach it, which shows the new size")
	}
	return nil
}

// GrowMounted makes the file system of a disk mount as large as its device, and returns its size.
// It does so here and not in the process that serves the device, which must never wait for it.
func GrowMounted(ctx context.Context,
	rec *attachment.Record) (size int64, note string, err error) {
	if _, onTop, err := isMounted(rec.BlockDevice, rec.Mountpoint); err != nil || !onTop {
		return 0,
			fmt.Sprintf(
				"the disk and %s have grown; its file system isn't to be seen on %s from here, and was left as it is: give the command where it is mounted",
				rec.BlockDevice, rec.Mountpoint), err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(rec.Mountpoint, &st); err != nil {
		return 0, "", errs.Wrap(errs.Unavailable, err, "look at the file system on %s",
			rec.Mountpoint)
	}
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC:
		_, err = frontend.GrowExt4(rec.BlockDevice, rec.Mountpoint)
	case unix.XFS_SUPER_MAGIC:
		err = growWith(ctx, "xfsprogs", "xfs_growfs", "-d", rec.Mountpoint)
	case unix.BTRFS_SUPER_MAGIC:
		err = growWith(ctx, "btrfs-progs", "btrfs", "filesystem", "resize", "max", rec.Mountpoint)
	default:
		note = fmt.Sprintf(
			"the disk and %s have grown; the file system on %s is of a kind that isn't known, and was left as it is", rec.BlockDevice, rec.Mountpoint)
	}
	if err != nil {
		remedy := "give the command again"
		if r := errs.RemedyOf(err); r != "" {
			remedy = r + "; then give the command again"
		}
		return 0, "", errs.Wrap(errs.KindOf(err), err,
			"the disk and %s have grown, and the file system has not", rec.BlockDevice).
			WithRemedy("%s", remedy)
	}
	if err := unix.Statfs(rec.Mountpoint, &st); err != nil {
		return 0, "", errs.Wrap(errs.Unavailable, err, "look at the file system on %s",
			rec.Mountpoint)
	}
	return int64(st.Blocks) * st.Bsize, note, nil //nolint:gosec // a size
}

// growWith grows a file system by its own tool, which is of a Debian package.
func growWith(ctx context.Context, pkg, name string, args ...string) error {
	if _, err := exec.LookPath(name); err != nil {
		return errs.Wrap(errs.Unsupported, err, "find %s", name).WithRemedy("install %s", pkg)
	}
	return system(ctx, name, args...)
}
