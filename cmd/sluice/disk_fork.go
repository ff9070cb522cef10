package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/host"
	"github.com/sluice-platform/sluice/internal/x/bytesize"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func newDiskForkCommand(d *deps) *cobra.Command {
	var size string
	var encrypt bool
	var childKey keyFlags
	cmd := &cobra.Command{
		Use:   "fork URL CHECKPOINT NEW-URL",
		Short: "Make a new disk that begins as a checkpoint of another",
		Long: `Make a new disk that begins as a checkpoint of another, in the same store. Nothing
is copied. It may be larger, and not smaller. A fork of an encrypted disk is
encrypted, with a key of its own for what it writes. Of one in the clear it is with
--encrypt; what it inherits stays in the clear. Its log is beside its other objects,
wherever the other disk's log is, unless NEW-URL has ?log=STORE-URL.
` + keyHelp + exitTable,
		Example: `  sluice disk fork s3://bucket/prefix/disks/01f3a4b5c6d7e8 monday s3://bucket/prefix/disks/copy-1
  sluice disk fork s3://bucket/disks/secret monday s3://bucket/disks/copy --key-file secret.key --new-key-file copy.key`,
		Args: exactly("a disk URL", "a checkpoint", "the URL of the new disk"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts, err := d.forkOptions(size, encrypt, &childKey)
			if err != nil {
				return err
			}
			info, err := d.forkDisk(cmd.Context(), args[0], args[1], args[2], opts)
			if err != nil {
				return err
			}
			return d.result(info, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s  %s\n", info.URL, byteCount(info.SizeBytes))
				return err
			})
		},
	}
	cmd.Flags().StringVar(&size, "size", "",
		"size of the new disk; a bare number is in GiB (default: the checkpoint's)")
	addEncrypt(cmd, &encrypt)
	addNamedKeyFlags(cmd, &childKey, "new-", "for the new disk (default: the other disk's)")
	return d.addKeyFlags(cmd)
}

func (d *deps) forkOptions(size string, encrypt bool,
	childKey *keyFlags) (disk.ForkOptions, error) {
	var opts disk.ForkOptions
	var err error
	if size != "" {
		if opts.Size, err = bytesize.Parse(size, 1<<30); err != nil {
			return opts, err
		}
	}
	if opts.ParentKey, err = d.diskKey(); err != nil {
		return opts, err
	}
	if opts.Key, err = childKey.load(); err != nil {
		return opts, err
	}
	if encrypt && opts.Key == nil {
		if opts.Key = opts.ParentKey; opts.Key == nil {
			return opts,
				usageError(
					"--encrypt needs a key: --new-key-file, --new-key-command, --key-file or --key-command")
		}
	}
	return opts, nil
}

func (d *deps) forkDisk(ctx context.Context, parent, checkpoint, child string,
	opts disk.ForkOptions) (api.DiskInfo, error) {
	ref, err := d.openDisk(ctx, parent)
	if err != nil {
		return api.DiskInfo{}, err
	}
	defer ref.Store.Close()
	from, _, err := blobs.SplitDiskURL(ref.URL)
	if err != nil {
		return api.DiskInfo{}, err
	}
	child, opts.LogURL, err = blobs.SplitLogURL(child)
	if err != nil {
		return api.DiskInfo{}, err
	}
	to, childPath, err := blobs.SplitDiskURL(child)
	if err != nil {
		return api.DiskInfo{}, err
	}
	opts.OpenLog, opts.Pool = openLog, ref.Pool
	if err := probeLog(ctx, opts.LogURL); err != nil {
		return api.DiskInfo{}, err
	}
	if from != to {
		return api.DiskInfo{}, errs.New(errs.Unsupported,
			"disk %s is in the store %s, and %s would be in %s", parent, from, child, to).
			WithRemedy("fork within one store, where nothing is copied; or export and import")
	}
	made := &diskRef{Ref: &host.Ref{URL: child, Path: childPath, Pool: ref.Pool, Store: ref.Store}}
	if err := errors.Join(mustBeOutside(ctx, child), mustBeVacant(ctx, made)); err != nil {
		return api.DiskInfo{}, err
	}
	if _, err := disk.Fork(ctx, ref.Store, ref.Path, checkpoint, childPath, opts); err != nil {
		return api.DiskInfo{}, err
	}
	if err := confirmPlace(ctx, made); err != nil {
		return api.DiskInfo{}, err
	}
	disk.AdoptTrace(ctx, ref.Store, ref.Path, checkpoint)
	return storedInfo(ctx, made)
}
