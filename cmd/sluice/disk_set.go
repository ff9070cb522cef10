package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/diskapi"
	"github.com/sluice-platform/sluice/internal/disk/host"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func newDiskSetCommand(d *deps) *cobra.Command {
	var mode string
	var takeOver bool
	cmd := &cobra.Command{
		Use:   "set URL --mode durable|bounded=T",
		Short: "Change how a disk acknowledges flushes",
		Long: `Change how a disk acknowledges flushes: durable, by the store; or bounded=T, by a
journal on the host that has it attached, which is faster. If that host is lost,
acknowledged writes of the last T may be, and what is left is as of one moment.

A disk that is attached on this host is changed while it is in use. To become
bounded it needs --journal; to become durable it first writes to the store all that
it has acknowledged, and the command returns after that. A disk that nobody has
attached is told for its next attach.
` + journalHelp + exitTable,
		Example: `  sluice disk set s3://bucket/disks/db --mode bounded=2s
  sluice disk set s3://bucket/disks/db --mode bounded=2s --journal /var/lib/db.journal   # while it is mounted
  sluice disk set s3://bucket/disks/db --mode durable`,
		Args:    exactly("a disk URL"),
		PreRunE: requires("mode"),
		RunE: func(cmd *cobra.Command, args []string) error {
			bound, err := parseMode(mode)
			if err != nil {
				return err
			}
			info, err := d.setBound(cmd.Context(), args[0], bound, takeOver)
			if err != nil {
				return err
			}
			return d.result(info, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s  %s\n", info.URL,
					describeMode(info.Mode, info.BoundMS))
				return err
			})
		},
	}
	cmd.Flags().StringVar(&mode, "mode", "",
		"durable (the store), or bounded=T (a journal; T from 100ms to 1h)")
	addTakeOver(cmd, &takeOver)
	return d.addJournalFlags(d.addKeyFlags(cmd))
}

// setBound changes the mode of a disk, where it is attached on this host by asking who has it.
func (d *deps) setBound(ctx context.Context, url string, bound time.Duration,
	takeOver bool) (api.DiskInfo, error) {
	if bound == 0 && d.journal.size != "" && d.journal.file == "" {
		return api.DiskInfo{}, usageError("--journal-size is of a --journal")
	}
	return d.changeAnywhere(ctx, url, takeOver,
		func(ctx context.Context, ref *diskRef, rec *attachment.Record) error {
			if rec == nil {
				if err := mustBeNobodys(ctx, ref, takeOver); err != nil {
					return err
				}
				_, err := disk.SetBound(ctx, ref.Store, ref.Path, bound)
				return err
			}
			head, err := disk.ReadHead(ctx, ref.Store, ref.Path)
			if err != nil {
				return err
			}
			// before a journal is made for nothing
			if err := disk.MayHaveBound(head, bound); err != nil {
				return err
			}
			req := diskapi.Mode{BoundMS: bound.Milliseconds(), JournalSize: d.journal.size}
			if f := d.journal.file; f != "" && bound > 0 {
				if req.Journal, err = filepath.Abs(f); err != nil {
					return errs.Wrap(errs.Invalid, err, "journal %s", f)
				}
			}
			return host.Client(rec).SetMode(ctx, req)
		})
}

// changeAnywhere changes a disk: rec is the attachment of this host that writes it, or nil if
// nobody has it attached.
func (d *deps) changeAnywhere(ctx context.Context, url string, takeOver bool,
	change func(context.Context, *diskRef, *attachment.Record) error) (api.DiskInfo, error) {
	ref, err := d.openDisk(ctx, url)
	if err != nil {
		return api.DiskInfo{}, err
	}
	defer ref.Store.Close()
	rec, err := host.WriterHere(d.registry(), ref.URL)
	if err != nil {
		return api.DiskInfo{}, err
	}
	if rec == nil {
		if err := d.settle(ctx, ref, takeOver); err != nil {
			return api.DiskInfo{}, err
		}
	}
	if err := change(ctx, ref, rec); err != nil {
		return api.DiskInfo{}, err
	}
	return storedInfo(ctx, ref)
}

// mustBeNobodys refuses the disk of a machine, whose fleet decides what it is.
func mustBeNobodys(ctx context.Context, ref *diskRef, takeOver bool) error {
	_, _, err := disk.ReadOwnerDoc(ctx, ref.Store, ref.Path)
	switch {
	case errs.Is(err, errs.NotFound) || err == nil && takeOver:
		return nil
	case err != nil:
		return err
	}
	return errs.New(errs.Conflict,
		"disk %s belongs to a machine of a fleet, which has no journal for it", ref.URL).
		WithRemedy("leave it durable; if the fleet is gone: --take-over")
}
