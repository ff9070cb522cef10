package main

import (
	"github.com/spf13/cobra"
)

func newDiskCommand(d *deps) *cobra.Command {
	cmd := newNoun("disk", "Make, mount, serve, copy, check, checkpoint and fork disks",
		newDiskCreateCommand(d), newDiskInfoCommand(d), newDiskMountCommand(d),
		newDiskAttachCommand(d), newDiskTopCommand(d), newDiskServeCommand(d),
		newDiskDetachCommand(d),
		newDiskCheckpointCommand(d), newDiskRestoreCommand(d), newDiskForkCommand(d),
		newDiskResizeCommand(d), newDiskSetCommand(d),
		newDiskRekeyCommand(d),
		newDiskImportCommand(d), newDiskExportCommand(d), newDiskFsckCommand(d),
		newDiskCompactCommand(d), newDiskCollectCommand(d), newDiskBenchCommand(d),
		newDiskPinCommand(d), newDiskUnpinCommand(d),
		newDiskDestroyCommand(d))
	cmd.Long = `Make, mount, serve, copy, check, checkpoint and fork disks. A disk is a virtual
block device whose truth is in an object store. No fleet is needed for any of this:
a disk is named by its URL,

  s3://bucket/prefix/disks/NAME?endpoint=https://host&region=R&path_style=true
  file:///directory/disks/NAME

(a new one with its log in a second store:
s3://bucket/disks/NAME?log=s3://fast-bucket/prefix), and S3 credentials are those of
the usual AWS environment. The disk of a machine is named by the URL that machine
status shows, or by --machine, and then the machine that has it attached is asked.`
	return cmd
}

func addMachineFlag(cmd *cobra.Command, machine *string) {
	cmd.Flags().StringVar(machine, "machine", "", "the disk of this machine, which runs")
}

// urlOrMachine takes n arguments, of which the first is a URL that --machine replaces.
func urlOrMachine(machine *string, n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		want := n
		if *machine != "" {
			want--
		}
		if len(args) != want {
			return usageError("%s takes a disk URL or --machine, and not both", cmd.CommandPath())
		}
		return nil
	}
}
