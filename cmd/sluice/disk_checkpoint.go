package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/host"
)

func newDiskCheckpointCommand(d *deps) *cobra.Command {
	var machine string
	var takeOver bool
	cmd := &cobra.Command{
		Use:   "checkpoint URL NAME | --machine MACHINE NAME",
		Short: "Name a disk's present content",
		Long: `Name a disk's present content, so that it can be forked, restored, read and
exported. Only metadata is written, whatever the size. A disk that is attached is
checkpointed by who has it: a mount or a server of this host is asked, and a machine
where --machine names it. What a mounted file system has in memory is written out
first.
` + exitTable,
		Example: "  sluice disk checkpoint --machine web-1 before-upgrade\n  sluice disk checkpoint file:///srv/pool/disks/01f3a4b5c6d7e8 monday",
		Args:    urlOrMachine(&machine, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			point, err := d.checkpoint(cmd.Context(), machine, args, takeOver)
			if err != nil {
				return err
			}
			return d.result(point, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, point.Name)
				return err
			})
		},
	}
	addMachineFlag(cmd, &machine)
	addTakeOver(cmd, &takeOver)
	cmd.AddCommand(newDiskCheckpointRemoveCommand(d))
	return d.addJournalFlags(d.addKeyFlags(cmd))
}

func (d *deps) checkpoint(ctx context.Context, machine string, args []string,
	takeOver bool) (api.DiskCheckpoint, error) {
	if machine != "" {
		c, err := d.client()
		if err != nil {
			return api.DiskCheckpoint{}, err
		}
		return c.CheckpointMachine(ctx, machine, args[0])
	}
	ref, err := d.openDisk(ctx, args[0])
	if err != nil {
		return api.DiskCheckpoint{}, err
	}
	defer ref.Store.Close()
	rec, err := host.WriterHere(d.registry(), ref.URL)
	if err != nil {
		return api.DiskCheckpoint{}, err
	}
	if rec != nil {
		return host.Checkpoint(ctx, rec, args[1])
	}
	if err := d.settle(ctx, ref, takeOver); err != nil {
		return api.DiskCheckpoint{}, err
	}
	point, err := disk.CheckpointClosed(ctx, ref.Store, ref.Path, args[1])
	if err != nil {
		return api.DiskCheckpoint{}, err
	}
	return api.DiskCheckpoint{Name: point.Name, CreatedAt: point.Created}, nil
}
