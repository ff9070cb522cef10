package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/host"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func newDiskAttachCommand(d *deps) *cobra.Command {
	var f holdFlags
	cmd := &cobra.Command{
		Use:   "attach URL",
		Short: "Make a disk a block device of this host",
		Long: `Make a disk a block device of this host, for as long as this command runs, and print
its path. Nothing is mounted: make a file system on it, mount it, or give it to a
database. An interrupt or SIGTERM, or disk detach, writes it out and closes the
disk; while it is mounted that waits, and a second interrupt tears it away. If the
disk stops by itself, as when another host takes it over, the device stays and gives
I/O errors until then.

Who may write the disk is as with disk mount. Needs root.
` + stallHelp + journalHelp + keyHelp + exitTable,
		Example: `  sluice disk attach s3://bucket/disks/data --background
  mkfs.xfs /dev/loop3 && mount /dev/loop3 /mnt
  umount /mnt; sluice disk detach /dev/loop3`,
		Args: exactly("a disk URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := errors.Join(f.validate(), d.journal.validate(f.readOnly)); err != nil {
				return err
			}
			if os.Getuid() != 0 {
				return errs.New(errs.Denied, "a block device needs root").WithRemedy(
					"run it by sudo, or use: sluice disk serve")
			}
			if f.background {
				return d.inBackground(cmd.Context(), args[0],
					append(append([]string{"disk", "attach", args[0]}, f.args()...),
						d.holdArgs()...))
			}
			return d.behind(cmd.Context(),
				func(ctx context.Context) error { return d.attachDevice(ctx, args[0], &f) })
		},
	}
	addHoldFlags(cmd, &f)
	addFrontEndFlag(cmd, &f)
	return d.addJournalFlags(d.addKeyFlags(cmd))
}

// attachDevice does all of disk attach.
func (d *deps) attachDevice(ctx context.Context, url string, f *holdFlags) error {
	return d.session(ctx, url, f, func(c *host.Config) error {
		c.Mode = attachment.Device
		return nil
	})
}
