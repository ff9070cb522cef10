package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/internal/disk/host"
)

func newDiskDetachCommand(d *deps) *cobra.Command {
	var wait time.Duration
	var force bool
	cmd := &cobra.Command{
		Use:   "detach URL | DIR | DEVICE",
		Short: "End the attachments of a disk on this host",
		Long: `End the attachments of a disk on this host: unmount what is mounted, hang up on NBD
clients, and close the disk. It returns when the processes are gone. A directory in
use keeps its mount, and the command fails after --wait; --force cuts off who uses
it. If a process in the background ends with an error, so does this.
` + exitTable,
		Example: "  sluice disk detach s3://bucket/disks/data\n  sluice disk detach /mnt",
		Args:    exactly("a disk URL, a directory or a block device"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ended, err := host.Detach(cmd.Context(), d.registry(), args[0], wait, force)
			if err != nil {
				return err
			}
			return d.result(ended, func(w io.Writer) error {
				for _, r := range ended {
					fmt.Fprintf(w, "%s: detached, process %d has ended\n", r.URL, r.PID)
				}
				return nil
			})
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 30*time.Second, "how long to wait for it to end")
	cmd.Flags().BoolVar(&force, "force", false, "cut off who uses the directory")
	return cmd
}
