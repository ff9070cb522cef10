package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/host"
)

// destroyed is what disk destroy answers.
type destroyed struct {
	URL   string `json:"url"`
	State string `json:"state"` // destroyed
	Left  int    `json:"left"`  // objects that stay, because forks may need them
}

func newDiskDestroyCommand(d *deps) *cobra.Command {
	var yes, lostLog bool
	cmd := &cobra.Command{
		Use:   "destroy URL",
		Short: "Remove a disk with all its checkpoints, for good",
		Long: `Remove a disk with all its checkpoints, for good. One that is attached is refused,
and so is one that belongs to a machine, which sluice machine destroy removes. What
forks of it may need stays in the store, and they work on. It can be repeated. What
it has in a log store is removed first. If that store is gone for good: --lost-log.
` + exitTable,
		Example: "  sluice disk destroy s3://bucket/disks/data --yes",
		Args:    exactly("a disk URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			out, err := d.destroyDisk(cmd.Context(), args[0], yes, lostLog)
			if err != nil {
				return err
			}
			return d.result(out, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s is destroyed\n", out.URL)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "don't ask")
	cmd.Flags().BoolVar(&lostLog, "lost-log", false,
		"leave what is in the disk's log store, which is gone")
	return cmd
}

func (d *deps) destroyDisk(ctx context.Context, url string, yes, lostLog bool) (destroyed, error) {
	ref, err := d.openDisk(ctx, url)
	if err != nil {
		return destroyed{}, err
	}
	defer ref.Store.Close()
	head, err := disk.ReadHead(ctx, ref.Store, ref.Path)
	if err != nil {
		return destroyed{}, ref.Explain(ctx, err)
	}
	if err := host.MayAttach(ctx, ref.Ref, d.registry(), head); err != nil {
		return destroyed{}, err
	}
	if !yes {
		if err := d.confirm(fmt.Sprintf("Destroy disk %s with %s and all its checkpoints?", ref.URL,
			byteCount(head.Size)), host.Name(ref.Path)); err != nil {
			return destroyed{}, err
		}
	}
	open := openLog
	if lostLog {
		// nothing is there
		open = func(context.Context, string) (blob.Store, error) { return memblob.New(), nil }
	}
	if err := disk.Destroy(ctx, ref.Store, ref.Path,
		disk.DestroyOptions{OpenLog: open, Pool: ref.Pool}); err != nil {
		return destroyed{}, err
	}
	out := destroyed{URL: ref.URL, State: "destroyed"}
	err = ref.Store.List(ctx, ref.Path+"/", "", func(blob.Entry) bool {
		out.Left++
		return true
	})
	return out, err
}
