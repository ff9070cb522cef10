package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/disk"
)

func addTakeOver(cmd *cobra.Command, takeOver *bool) {
	cmd.Flags().BoolVar(takeOver, "take-over", false,
		"cut off a writer that has it open, which must be gone for good")
}

// restored is what disk restore answers.
type restored struct {
	api.DiskInfo
	Restored string `json:"restored"`
	Saved    string `json:"saved"` // the checkpoint that holds what was replaced
}

func newDiskRestoreCommand(d *deps) *cobra.Command {
	var takeOver bool
	cmd := &cobra.Command{
		Use:   "restore URL CHECKPOINT",
		Short: "Make a disk what it was at a checkpoint, and keep what it replaces",
		Long: `Make a disk that nobody has attached what it was at a checkpoint. What it was until
then is kept as another checkpoint, whose name is printed: restoring that undoes it.
Only metadata is written, whatever the size.
` + exitTable,
		Example: "  sluice disk restore s3://bucket/disks/data monday",
		Args:    exactly("a disk URL", "a checkpoint"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := restored{Restored: args[1]}
			info, err := d.changeDisk(cmd.Context(), args[0], takeOver,
				func(ctx context.Context, ref *diskRef) (err error) {
					_, r.Saved, err = disk.Restore(ctx, ref.Store, ref.Path, args[1])
					return err
				})
			if err != nil {
				return err
			}
			r.DiskInfo = info
			return d.result(r, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s is what it was at %s; what it was before is %s\n",
					r.URL, r.Restored, r.Saved)
				return err
			})
		},
	}
	addTakeOver(cmd, &takeOver)
	return d.addJournalFlags(d.addKeyFlags(cmd))
}

// changeDisk changes a disk that nobody has attached, after a crash of its writer on this host too.
func (d *deps) changeDisk(ctx context.Context, url string, takeOver bool,
	change func(context.Context, *diskRef) error) (api.DiskInfo, error) {
	ref, err := d.openDisk(ctx, url)
	if err != nil {
		return api.DiskInfo{}, err
	}
	defer ref.Store.Close()
	if err := d.settle(ctx, ref, takeOver); err != nil {
		return api.DiskInfo{}, err
	}
	if err := change(ctx, ref); err != nil {
		return api.DiskInfo{}, err
	}
	return storedInfo(ctx, ref)
}
