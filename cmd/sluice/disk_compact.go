package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/internal/disk"
)

// compacted is what disk compact answers.
type compacted struct {
	URL string `json:"url"`
	disk.Compaction
}

func newDiskCompactCommand(d *deps) *cobra.Command {
	var takeOver bool
	var target float64
	cmd := &cobra.Command{
		Use:   "compact URL",
		Short: "Repack what a disk stores, so that what is dead is in objects of its own",
		Long: `Attach a disk, repack the stored segments that hold least of its content until they
take at most --target times what is live in them, fold small log objects together,
and close it. What was repacked stays in the store, where disk fsck counts it as
unreachable unless checkpoints or forks need it, until disk collect frees it.
` + exitTable,
		Example: "  sluice disk compact s3://bucket/disks/data\n  sluice disk compact s3://bucket/disks/data --target 1.05 --json",
		Args:    exactly("a disk URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			out, err := d.compactDisk(cmd.Context(), args[0], takeOver, target)
			if err != nil {
				return err
			}
			return d.result(out, func(w io.Writer) error {
				_,
					err := fmt.Fprintf(w,
					"%d segments repacked into %d, %s copied; %s is live in %s\n",
					out.Segments, out.Packed,
					byteCount(out.MovedBytes), byteCount(out.LiveBytes), byteCount(out.SpaceBytes))
				return err
			})
		},
	}
	cmd.Flags().Float64Var(&target, "target", 1.2,
		"space that segments may take beside what is live in them, from 1.01")
	addTakeOver(cmd, &takeOver)
	return d.addKeyFlags(cmd)
}

func (d *deps) compactDisk(ctx context.Context, url string, takeOver bool,
	target float64) (compacted, error) {
	ref, err := d.openDisk(ctx, url)
	if err != nil {
		return compacted{}, err
	}
	defer ref.Store.Close()
	w, err := d.attach(ctx, ref, takeOver)
	if err != nil {
		return compacted{}, err
	}
	bar := d.newDiskBar(ctx, "repacking", countsBytes)
	out := compacted{URL: ref.URL}
	out.Compaction, err = w.Compact(ctx, disk.CompactOptions{Target: target,
		Progress: func(c disk.Compaction) { bar.set(c.MovedBytes, c.MovedBytes+c.RestBytes) }})
	bar.end()
	return out, errors.Join(err, w.Close(ctx))
}
