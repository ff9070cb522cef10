package main

import (
	"context"
	"fmt"
	"io"
	"os/exec"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/disk/host"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func newDiskResizeCommand(d *deps) *cobra.Command {
	var size string
	var takeOver bool
	cmd := &cobra.Command{
		Use:   "resize URL --size SIZE",
		Short: "Make a disk larger, also while it is in use",
		Long: `Make a disk larger. Its content stays. Of a disk that this host has attached the
block device grows while it is in use, and with disk mount the file system on it too
(ext4, xfs, btrfs). With disk attach the file system is told by you (resize2fs,
xfs_growfs); NBD clients see the new size when they connect again. A disk that
nobody has attached is that large at its next attach; give the command again when it
is mounted, and the file system grows. What is interrupted is finished by giving the
command again; what is done already is left alone. A disk can't shrink.
` + exitTable,
		Example: `  sluice disk resize s3://bucket/disks/data --size 20GiB
  sluice disk mount s3://bucket/disks/data /mnt --background && sluice disk resize s3://bucket/disks/data --size 40GiB`,
		Args:    exactly("a disk URL"),
		PreRunE: requires("size"),
		RunE: func(cmd *cobra.Command, args []string) error {
			bytes, err := diskSize(size)
			if err != nil {
				return err
			}
			r, err := d.resize(cmd.Context(), args[0], bytes, takeOver)
			if err != nil {
				return err
			}
			if r.Note != "" {
				fmt.Fprintln(d.stderr, r.Note)
			}
			return d.result(r, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s  %s\n", r.URL, byteCount(r.SizeBytes))
				return err
			})
		},
	}
	cmd.Flags().StringVar(&size, "size", "", "the new size; a bare number is in GiB")
	addTakeOver(cmd, &takeOver)
	return d.addJournalFlags(d.addKeyFlags(cmd))
}

// resized is what disk resize answers.
type resized struct {
	api.DiskInfo
	// of the one that disk mount has mounted
	FileSystemBytes int64  `json:"file_system_bytes,omitempty"`
	Note            string `json:"note,omitempty"` // what is left to do, if anything
}

func (d *deps) resize(ctx context.Context, url string, size int64, takeOver bool) (resized, error) {
	var r resized
	info, err := d.changeAnywhere(ctx, url, takeOver,
		func(ctx context.Context, ref *diskRef, rec *attachment.Record) error {
			if rec == nil {
				_, err := disk.Grow(ctx, ref.store, ref.path, size)
				return err
			}
			if err := host.Client(rec).Grow(ctx, size); err != nil {
				return err
			}
			switch rec.Mode {
			case attachment.Mount:
				var err error
				r.FileSystemBytes, r.Note, err = d.growMounted(ctx, rec)
				return err
			case attachment.Device:
				r.Note = rec.BlockDevice +
					" has the new size; what is on it grows when it is told to: resize2fs, xfs_growfs, …"
			case attachment.Serve:
				r.Note = "NBD clients see the new size when they connect again"
			}
			return nil
		})
	r.DiskInfo = info
	return r, err
}

// grow makes the disk larger, and the device that shows it. When it dies in between, the next
// attach shows the new size.
func (h *held) grow(ctx context.Context, size int64) error {
	if err := h.writer.Grow(ctx, size); err != nil {
		return err
	}
	if h.front == nil {
		return nil
	}
	if err := h.front.Resize(); err != nil {
		return errs.Wrap(errs.KindOf(err), err, "the disk has grown, and %s has not",
			h.front.BlockDevice()).
			WithRemedy(
				"give the command again; or detach the disk and attach it, which shows the new size")
	}
	return nil
}

// growMounted makes the file system of a disk mount as large as its device, and returns its size.
// It does so here and not in the process that serves the device, which must never wait for it.
func (d *deps) growMounted(ctx context.Context,
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
		err = d.growWith(ctx, "xfsprogs", "xfs_growfs", "-d", rec.Mountpoint)
	case unix.BTRFS_SUPER_MAGIC:
		err = d.growWith(ctx, "btrfs-progs", "btrfs", "filesystem", "resize", "max", rec.Mountpoint)
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
func (d *deps) growWith(ctx context.Context, pkg, name string, args ...string) error {
	if _, err := exec.LookPath(name); err != nil {
		return errs.Wrap(errs.Unsupported, err, "find %s", name).WithRemedy("install %s", pkg)
	}
	return d.system(ctx, name, args...)
}
