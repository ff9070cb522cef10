package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/host"
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
				_, err := disk.Grow(ctx, ref.Store, ref.Path, size)
				return err
			}
			if err := host.Client(rec).Grow(ctx, size); err != nil {
				return err
			}
			switch rec.Mode {
			case attachment.Mount:
				var err error
				r.FileSystemBytes, r.Note, err = host.GrowMounted(ctx, rec)
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
