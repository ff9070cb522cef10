package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func newDiskCommand(d *deps) *cobra.Command {
	cmd := newNoun("disk", "Look at disks, checkpoint and fork them",
		newDiskInfoCommand(d), newDiskCheckpointCommand(d), newDiskForkCommand(d))
	cmd.Long = `Look at disks, checkpoint and fork them. A disk is named by its URL, as machine status shows it, and is
then read from the store directly, with the S3 credentials of the usual AWS environment; or by --machine,
and then the machine that has it attached is asked.`
	return cmd
}

// openDisk opens the store that a disk is in.
func openDisk(ctx context.Context, url string) (blob.Store, string, error) {
	pool, path, err := blobs.SplitDiskURL(url)
	if err != nil {
		return nil, "", err
	}
	store, err := blobs.Open(ctx, pool)
	return store, path, err
}

func newDiskInfoCommand(d *deps) *cobra.Command {
	var machine string
	cmd := &cobra.Command{
		Use:     "info URL | --machine MACHINE",
		Short:   "Show a disk's head, checkpoints, forks and size in the store",
		Long:    "Show a disk's head, checkpoints, forks and size in the store." + exitTable,
		Example: "  sluice disk info s3://bucket/prefix/disks/01f3a4b5c6d7e8\n  sluice disk info --machine web-1",
		Args:    urlOrMachine(&machine, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			info, err := d.diskInfo(cmd.Context(), machine, args)
			if err != nil {
				return err
			}
			return d.result(info, func(w io.Writer) error { return printDisk(w, info) })
		},
	}
	addMachineFlag(cmd, &machine)
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

func (d *deps) diskInfo(ctx context.Context, machine string, args []string) (api.DiskInfo, error) {
	if machine != "" {
		return d.attachedDiskInfo(ctx, machine)
	}
	store, path, err := openDisk(ctx, args[0])
	if err != nil {
		return api.DiskInfo{}, err
	}
	defer store.Close()
	details, err := disk.Info(ctx, store, path)
	if err != nil {
		return api.DiskInfo{}, err
	}
	points, err := disk.ListCheckpoints(ctx, store, path)
	if err != nil {
		return api.DiskInfo{}, err
	}
	return diskToAPI(args[0], details, points), nil
}

// attachedDiskInfo asks the platform that has the disk attached.
func (d *deps) attachedDiskInfo(ctx context.Context, machine string) (api.DiskInfo, error) {
	c, err := d.client()
	if err != nil {
		return api.DiskInfo{}, err
	}
	m, err := c.Machine(ctx, machine)
	if err != nil {
		return api.DiskInfo{}, err
	}
	info, err := c.MachineDisk(ctx, m.ID)
	if err != nil {
		return info, err
	}
	info.URL = m.DiskURL // the platform knows only its path
	info.Checkpoints, err = c.MachineCheckpoints(ctx, m.ID)
	return info, err
}

func diskToAPI(url string, x *disk.Details, points []*format.Checkpoint) api.DiskInfo {
	h := x.Head
	out := api.DiskInfo{URL: url, ID: h.ID, SizeBytes: h.Size, State: string(h.State), Mode: h.Mode, Epoch: h.Epoch,
		Generation: h.Generation, Holder: h.Holder, UpdatedAt: h.Updated,
		MappedBytes: x.MappedBytes, StoredBytes: x.Bytes, Objects: x.Objects, Forks: x.Forks}
	if h.Parent != nil {
		out.Parent = h.Parent.Path + "@" + h.Parent.Checkpoint
	}
	for _, p := range points {
		out.Checkpoints = append(out.Checkpoints, api.DiskCheckpoint{Name: p.Name, CreatedAt: p.Created})
	}
	return out
}

func printDisk(w io.Writer, x api.DiskInfo) error {
	fmt.Fprintf(w, "Disk: %s\n", x.URL)
	fields := [][2]string{{"ID", x.ID}, {"State", x.State}, {"Mode", x.Mode}, {"Size", byteCount(x.SizeBytes)}}
	if x.Objects > 0 {
		fields = append(fields, [][2]string{{"Mapped", byteCount(x.MappedBytes)},
			{"In the store", fmt.Sprintf("%s in %d objects of its own", byteCount(x.StoredBytes), x.Objects)},
			{"Forks", strings.Join(x.Forks, ", ")}}...)
	}
	fields = append(fields, [][2]string{{"Epoch", fmt.Sprint(x.Epoch)}, {"Generation", fmt.Sprint(x.Generation)},
		{"Holder", x.Holder}, {"Parent", x.Parent}, {"Updated", timestamp(x.UpdatedAt)}}...)
	if err := printFields(w, fields); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nCheckpoints [%d]\n", len(x.Checkpoints))
	rows := make([][]string, 0, len(x.Checkpoints))
	for _, p := range x.Checkpoints {
		rows = append(rows, []string{p.Name, timestamp(p.CreatedAt)})
	}
	return printTable(w, []string{"NAME", "CREATED"}, rows)
}

func newDiskCheckpointCommand(d *deps) *cobra.Command {
	var machine string
	cmd := &cobra.Command{
		Use:   "checkpoint URL NAME | --machine MACHINE NAME",
		Short: "Name a disk's present content",
		Long: `Name a disk's present content, so that it can be forked. Only metadata is written, whatever the size. A disk
that is attached is checkpointed by the machine that has it: use --machine.
` + exitTable,
		Example: "  sluice disk checkpoint --machine web-1 before-upgrade\n  sluice disk checkpoint file:///srv/pool/disks/01f3a4b5c6d7e8 monday",
		Args:    urlOrMachine(&machine, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			point, err := d.checkpoint(cmd.Context(), machine, args)
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
	return cmd
}

func (d *deps) checkpoint(ctx context.Context, machine string, args []string) (api.DiskCheckpoint, error) {
	if machine != "" {
		c, err := d.client()
		if err != nil {
			return api.DiskCheckpoint{}, err
		}
		return c.CheckpointMachine(ctx, machine, args[0])
	}
	store, path, err := openDisk(ctx, args[0])
	if err != nil {
		return api.DiskCheckpoint{}, err
	}
	defer store.Close()
	point, err := disk.CheckpointClosed(ctx, store, path, args[1])
	if errs.Is(err, errs.Conflict) {
		return api.DiskCheckpoint{}, errs.Wrap(errs.Conflict, err, "disk %s is attached", args[0]).
			WithRemedy("ask the machine that has it: sluice disk checkpoint --machine MACHINE %s", args[1])
	}
	if err != nil {
		return api.DiskCheckpoint{}, err
	}
	return api.DiskCheckpoint{Name: point.Name, CreatedAt: point.Created}, nil
}

func newDiskForkCommand(d *deps) *cobra.Command {
	var size string
	cmd := &cobra.Command{
		Use:   "fork URL CHECKPOINT NEW-URL",
		Short: "Make a new disk that begins as a checkpoint of another",
		Long: `Make a new disk that begins as a checkpoint of another, in the same store. Nothing is copied. It may be
larger, and not smaller.
` + exitTable,
		Example: `  sluice disk fork s3://bucket/prefix/disks/01f3a4b5c6d7e8 monday s3://bucket/prefix/disks/copy-1`,
		Args:    exactly("a disk URL", "a checkpoint", "the URL of the new disk"),
		RunE: func(cmd *cobra.Command, args []string) error {
			info, err := forkDisk(cmd.Context(), args[0], args[1], args[2], size)
			if err != nil {
				return err
			}
			return d.result(info, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s  %s\n", info.URL, byteCount(info.SizeBytes))
				return err
			})
		},
	}
	cmd.Flags().StringVar(&size, "size", "", "size of the new disk; a bare number is in GiB (default: the checkpoint's)")
	return cmd
}

func forkDisk(ctx context.Context, parent, checkpoint, child, size string) (api.DiskInfo, error) {
	var opts disk.ForkOptions
	var err error
	if size != "" {
		if opts.Size, err = parseSize(size, 1<<30); err != nil {
			return api.DiskInfo{}, err
		}
	}
	store, path, err := openDisk(ctx, parent)
	if err != nil {
		return api.DiskInfo{}, err
	}
	defer store.Close()
	from, _, err := blobs.SplitDiskURL(parent)
	if err != nil {
		return api.DiskInfo{}, err
	}
	to, childPath, err := blobs.SplitDiskURL(child)
	if err != nil {
		return api.DiskInfo{}, err
	}
	if from != to {
		return api.DiskInfo{}, errs.New(errs.Invalid, "disk %s is in the store %s, and %s would be in %s", parent, from, child, to).
			WithRemedy("fork within one store; nothing is copied")
	}
	if _, err := disk.Fork(ctx, store, path, checkpoint, childPath, opts); err != nil {
		return api.DiskInfo{}, err
	}
	details, err := disk.Info(ctx, store, childPath)
	if err != nil {
		return api.DiskInfo{}, err
	}
	return diskToAPI(child, details, nil), nil
}
