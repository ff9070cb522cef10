package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/disk/host"
)

func newDiskMountCommand(d *deps) *cobra.Command {
	var f holdFlags
	cmd := &cobra.Command{
		Use:   "mount URL DIR",
		Short: "Mount the file system of a disk on a directory",
		Long: `Mount the file system of a disk on a directory, for as long as this command runs: an
interrupt or SIGTERM, or umount DIR, unmounts it and closes the disk. If the disk
stops by itself, as when another host takes it over, the mount stays and gives I/O
errors until somebody does that, so that nothing is written into the directory
beneath. The same is left on DIR by a process that was killed. What was fsynced is
in the store, whatever happens to this host; of a disk of mode bounded it may for a
moment be in its journal only.

A disk on which nothing was ever written gets an ext4 file system first. Any other
content is left as it is.

A disk has one writer. One that is attached elsewhere is refused; --take-over cuts
the other one off, and is for writers that are gone for good. What a process of this
host has left behind when it was killed is taken over without asking. With
--read-only any number of hosts mount a disk as it was at a checkpoint, or at its
newest map, while another writes it. Needs root.
` + stallHelp + journalHelp + keyHelp + exitTable,
		Example: `  sluice disk mount s3://bucket/disks/data /mnt
  sluice disk mount file:///srv/pool/disks/data /mnt --background
  sluice disk mount s3://bucket/disks/data /mnt --read-only --checkpoint monday`,
		Args: exactly("a disk URL", "a directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := errors.Join(f.validate(), d.journal.validate(f.readOnly)); err != nil {
				return err
			}
			dir, err := host.MountDir(args[1])
			if err != nil {
				return err
			}
			if f.background {
				return d.inBackground(cmd.Context(), args[0],
					append(append([]string{"disk", "mount", args[0], dir}, f.args()...),
						d.holdArgs()...))
			}
			return d.behind(cmd.Context(),
				func(ctx context.Context) error { return d.mountDisk(ctx, args[0], dir, &f) })
		},
	}
	addHoldFlags(cmd, &f)
	addFrontEndFlag(cmd, &f)
	return d.addJournalFlags(d.addKeyFlags(cmd))
}

func addFrontEndFlag(cmd *cobra.Command, f *holdFlags) {
	cmd.Flags().StringVar(&f.frontEnd, "frontend", string(frontend.Auto),
		"how the kernel gets the disk: fuse, nbd (its own client, module nbd), or auto, which is fuse")
}

func addHoldFlags(cmd *cobra.Command, f *holdFlags) {
	cmd.Flags().BoolVar(&f.readOnly, "read-only", false,
		"read the disk as its newest map, or --checkpoint, has it")
	cmd.Flags().BoolVar(&f.noPin, "no-pin", false,
		"with --read-only: write nothing to the store, though a collector may delete what is read")
	cmd.Flags().StringVar(&f.checkpoint, "checkpoint", "",
		"the checkpoint to read, with --read-only")
	cmd.Flags().BoolVar(&f.takeOver, "take-over", false,
		"cut off another writer, which must be gone for good")
	cmd.Flags().DurationVar(&f.stallTimeout, "stall-timeout", defaultStallTimeout,
		"how long who uses the disk waits for the store before an I/O error; 0: for ever")
	cmd.Flags().BoolVar(&f.background, "background", false, backgroundHelp)
}

// mountDisk does all of disk mount.
func (d *deps) mountDisk(ctx context.Context, url, dir string, f *holdFlags) error {
	return d.session(ctx, url, f, func(c *host.Config) error {
		c.Mode, c.Dir = attachment.Mount, dir
		return nil
	})
}
