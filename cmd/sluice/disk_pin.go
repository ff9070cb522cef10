package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/format"
)

// diskPin is a pin as commands show it.
type diskPin struct {
	Name       string        `json:"name"`
	Holder     string        `json:"holder"`
	Checkpoint string        `json:"checkpoint,omitempty"`
	Holds      string        `json:"holds"` // all, or map
	Lease      time.Duration `json:"lease_ns,omitempty"`
	CreatedAt  time.Time     `json:"created_at"`
	RenewedAt  time.Time     `json:"renewed_at"`
}

func pinToShow(p *format.Pin) diskPin {
	x := diskPin{Name: p.ID, Holder: p.Holder, Holds: "map",
		Lease: time.Duration(p.LeaseMS) * time.Millisecond, CreatedAt: p.Created,
		RenewedAt: p.Renewed}
	if p.All {
		x.Holds = "all"
	}
	if p.Map != nil {
		x.Checkpoint = p.Map.Checkpoint
	}
	return x
}

func newDiskPinCommand(d *deps) *cobra.Command {
	var checkpoint string
	cmd := &cobra.Command{
		Use:   "pin URL NAME",
		Short: "Keep what a disk refers to now from being collected",
		Long: `Keep what a disk's newest map, or one of its checkpoints, refers to from being
collected, until disk unpin: also when the disk is overwritten, its checkpoint
removed, or the disk destroyed. It is for who reads the stored objects with tools of
his own. Read-only mounts, exports and restores pin what they need by themselves.
` + exitTable,
		Example: "  sluice disk pin s3://bucket/disks/data backup-run --checkpoint monday\n  sluice disk unpin s3://bucket/disks/data backup-run",
		Args:    exactly("a disk URL", "a name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := d.pinDisk(cmd.Context(), args[0], args[1], checkpoint)
			if err != nil {
				return err
			}
			return d.result(p, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, p.Name)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&checkpoint, "checkpoint", "",
		"the checkpoint to pin (default: the newest map)")
	return cmd
}

func (d *deps) pinDisk(ctx context.Context, url, name, checkpoint string) (diskPin, error) {
	ref, err := d.openDisk(ctx, url)
	if err != nil {
		return diskPin{}, err
	}
	defer ref.Store.Close()
	self, err := attachment.Self()
	if err != nil {
		return diskPin{}, err
	}
	p, err := disk.PinMap(ctx, ref.Store, ref.Path, name, checkpoint, self.Holder())
	if err != nil {
		return diskPin{}, ref.Explain(ctx, err)
	}
	return pinToShow(p), nil
}

func newDiskUnpinCommand(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:   "unpin URL NAME",
		Short: "Remove a pin",
		Long: `Remove a pin, so that what it kept may be collected. A reader whose pin is removed,
which disk info shows, stops within minutes.
` + exitTable,
		Example: "  sluice disk unpin s3://bucket/disks/data backup-run",
		Args:    exactly("a disk URL", "a name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := d.openDisk(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer ref.Store.Close()
			if err := disk.Unpin(cmd.Context(), ref.Store, ref.Path, args[1]); err != nil {
				return err
			}
			return d.result(map[string]string{"url": ref.URL, "unpinned": args[1]},
				func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "%s is unpinned\n", args[1])
					return err
				})
		},
	}
}

func newDiskCheckpointRemoveCommand(d *deps) *cobra.Command {
	return &cobra.Command{
		Use:   "rm URL NAME",
		Short: "Remove a checkpoint, for good",
		Long: `Remove a checkpoint, for good. Its name must be exact. Forks of it, pins, and who
reads it keep what they need; what nothing else needs is freed by disk collect. The
disk may be attached.
` + exitTable,
		Example: "  sluice disk checkpoint rm s3://bucket/disks/data monday",
		Args:    exactly("a disk URL", "a checkpoint"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := d.openDisk(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer ref.Store.Close()
			if err := disk.RemoveCheckpoint(cmd.Context(), ref.Store, ref.Path,
				args[1]); err != nil {
				return ref.Explain(cmd.Context(), err)
			}
			return d.result(map[string]string{"url": ref.URL, "removed": args[1]},
				func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "checkpoint %s is removed\n", args[1])
					return err
				})
		},
	}
}

func printPins(w io.Writer, pins []diskPin) error {
	if len(pins) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\nPins [%d]\n", len(pins))
	rows := make([][]string, 0, len(pins))
	for _, p := range pins {
		lease := "until unpinned"
		if p.Lease > 0 {
			lease = p.Lease.String()
		}
		rows = append(rows, []string{p.Name, p.Holds, p.Checkpoint, p.Holder, lease,
			timestamp(p.RenewedAt)})
	}
	return printTable(w, []string{"NAME", "HOLDS", "CHECKPOINT", "HOLDER", "LEASE",
		"RENEWED"}, rows)
}

// storedPins returns the pins of a disk that there are.
func storedPins(ctx context.Context, ref *diskRef) ([]diskPin, error) {
	pins, err := disk.ListPins(ctx, ref.Store, ref.Path)
	var out []diskPin
	for _, p := range pins {
		out = append(out, pinToShow(p))
	}
	return out, err
}
