package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/disk/transfer"
	"github.com/sluice-platform/sluice/internal/x/bytesize"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func newDiskCreateCommand(d *deps) *cobra.Command {
	var f diskCreateFlags
	cmd := &cobra.Command{
		Use:   "create URL --size SIZE",
		Short: "Make a new disk, with a file system if you like",
		Long: `Make a new disk. It takes no space in the store but for what is written to it, so be
generous. The store must have conditional writes that work, which is looked at
first. With --fs ext4 it can be mounted at once. With --mode bounded=T a flush is
acknowledged by a journal on the host that attaches the disk, which is faster than
the store; if that host is lost, acknowledged writes of the last T may be, and what
is left is as of one moment. The default, durable, loses none. With ?log=STORE-URL
in the disk's URL its log is in a second store, which is faster: a flush waits for
that one alone, and what it holds is moved to the disk's own store within a minute.
The disk remembers where its log is; other commands need no ?log=. With --encrypt
all data and the map of blocks are encrypted before they leave this host.
` + keyHelp + exitTable,
		Example: `  sluice disk create s3://bucket/disks/data --size 8GiB --fs ext4
  sluice disk create file:///srv/pool/disks/vm-1 --size 100GiB
  sluice disk create s3://bucket/disks/db --size 8GiB --fs ext4 --mode bounded=5s
  sluice disk create 's3://bucket/disks/db?log=s3://express-bucket/logs' --size 8GiB --fs ext4
  (umask 077; head -c32 /dev/urandom > data.key)
  sluice disk create s3://bucket/disks/data --size 8GiB --fs ext4 --encrypt --key-file data.key`,
		Args:    exactly("a disk URL"),
		PreRunE: requires("size"),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts, err := f.options(d)
			if err != nil {
				return err
			}
			info, err := d.createDisk(cmd.Context(), args[0], opts, f)
			if err != nil {
				return err
			}
			return d.result(info, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s  %s\n", info.URL, byteCount(info.SizeBytes))
				return err
			})
		},
	}
	cmd.Flags().StringVar(&f.size, "size", "", "size of the disk; a bare number is in GiB")
	cmd.Flags().StringVar(&f.fs, "fs", "", "make a file system on it: ext4")
	cmd.Flags().StringVar(&f.mode, "mode", "durable",
		"what acknowledges a flush: durable (the store), or bounded=T (a journal; T from 100ms to 1h)")
	cmd.Flags().StringVar(&f.label, "label", "", "the file system's label")
	addEncrypt(cmd, &f.encrypt)
	return d.addKeyFlags(cmd)
}

// diskCreateFlags are what disk create was asked for.
type diskCreateFlags struct {
	size, mode string
	fs, label  string // the file system to make; none where fs is ""
	encrypt    bool
}

// options returns what to make the disk with, its key included. Invalid: the flags contradict each
// other.
func (f diskCreateFlags) options(d *deps) (disk.CreateOptions, error) {
	bytes, err := diskSize(f.size)
	if err != nil {
		return disk.CreateOptions{}, err
	}
	bound, err := parseMode(f.mode)
	switch {
	case err != nil:
		return disk.CreateOptions{}, err
	case f.fs != "" && f.fs != "ext4":
		return disk.CreateOptions{}, usageError(
			"--fs knows ext4, not %q; serve the disk and make another one there", f.fs)
	case f.label != "" && (f.fs == "" || len(f.label) > 16):
		return disk.CreateOptions{}, usageError("--label names a file system, by up to 16 bytes")
	case f.encrypt && bound > 0:
		return disk.CreateOptions{}, usageError(
			"an encrypted disk is of mode durable: a journal would hold its writes in the clear")
	}
	key, err := d.newDiskKey(f.encrypt)
	return disk.CreateOptions{Size: bytes, Bound: bound, Key: key}, err
}

// diskSize reads a size and rounds it up to whole blocks.
func diskSize(s string) (int64, error) {
	n, err := bytesize.Parse(s, 1<<30)
	if err != nil {
		return 0, err
	}
	if n = wholeBlocks(n); n > disk.MaxSize {
		return 0, errs.New(errs.Invalid, "a disk of %s", byteCount(n)).
			WithRemedy("disks have up to %s", byteCount(disk.MaxSize))
	}
	return n, nil
}

func wholeBlocks(
	n int64) int64 {
	return (n + disk.BlockSize - 1) / disk.BlockSize * disk.BlockSize
}

func (d *deps) createDisk(ctx context.Context, url string, opts disk.CreateOptions,
	f diskCreateFlags) (api.DiskInfo, error) {
	if f.fs == "" {
		return d.newDisk(ctx, url, opts, nil)
	}
	return d.newDisk(ctx, url, opts, func(ctx context.Context, dev disk.Device) error {
		return fillWithFileSystem(ctx, dev, f.label)
	})
}

// newDisk makes a disk and lets fill, if there is one, write its content. A disk that could not be
// filled is removed again.
func (d *deps) newDisk(ctx context.Context, url string, opts disk.CreateOptions,
	fill func(ctx context.Context, dev disk.Device) error) (api.DiskInfo, error) {
	if err := mustBeOutside(ctx, url); err != nil {
		return api.DiskInfo{}, err
	}
	ref, err := d.openDisk(ctx, url)
	if err != nil {
		return api.DiskInfo{}, err
	}
	defer ref.Store.Close()
	if err := blobs.Probe(ctx, ref.Store, ref.URL); err != nil {
		return api.DiskInfo{}, err
	}
	if err := mustBeVacant(ctx, ref); err != nil {
		return api.DiskInfo{}, err
	}
	opts.LogURL, opts.OpenLog, opts.Pool = ref.LogURL, openLog, ref.Pool
	if err := probeLog(ctx, ref.LogURL); err != nil {
		return api.DiskInfo{}, err
	}
	bound := opts.Bound
	if fill != nil {
		opts.Bound = 0 // it is filled as a durable one, which needs no journal
	}
	head, err := disk.Create(ctx, ref.Store, ref.Path, opts)
	if errs.Is(err, errs.Exists) {
		return api.DiskInfo{}, errs.Wrap(errs.Exists, err, "cannot make disk %s", ref.URL).
			WithRemedy("look at it with: sluice disk info %s; or choose another URL", ref.URL)
	}
	if err == nil {
		err = confirmPlace(ctx, ref)
	}
	if err != nil {
		return api.DiskInfo{}, err
	}
	if fill != nil {
		if head, err = d.fill(ctx, ref, bound, fill); err != nil {
			return api.DiskInfo{}, err
		}
	}
	info := api.DiskInfo{URL: ref.URL, ID: head.ID, SizeBytes: head.Size, State: string(head.State),
		Mode: head.Mode, BoundMS: head.BoundMS,
		Epoch: head.Epoch, Generation: head.Generation, UpdatedAt: head.Updated}
	if l := head.LogStore; l != nil {
		info.LogStore = l.URL
	}
	if e := head.Encryption; e != nil {
		info.Cipher, info.KeyID, info.KEK = e.Cipher, e.KeyID, e.KEK
	}
	return info, nil
}

// probeLog sees whether a store can hold logs; an empty URL names none.
func probeLog(ctx context.Context, url string) error {
	if url == "" {
		return nil
	}
	store, err := openLog(ctx, url)
	if err != nil {
		return err
	}
	return errors.Join(blobs.ProbeLog(ctx, store, url), store.Close())
}

// fill lets f write a disk that was just made, and that nobody else knows of, and removes it if
// that fails.
func (d *deps) fill(ctx context.Context, ref *diskRef, bound time.Duration,
	f func(ctx context.Context, dev disk.Device) error) (*format.Head, error) {
	w, err := d.attach(ctx, ref, false)
	if err == nil {
		if err = f(ctx, w); err != nil {
			w.Abandon()
		} else {
			err = w.Close(ctx)
		}
	}
	if err == nil {
		var head *format.Head
		if head, err = disk.SetBound(ctx, ref.Store, ref.Path, bound); err == nil {
			return head, nil
		}
	}
	return nil, unmake(ctx, ref, err)
}

// unmake removes a disk that was just made, because of an error, which it returns.
func unmake(ctx context.Context, ref *diskRef, why error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := disk.Destroy(ctx, ref.Store, ref.Path,
		disk.DestroyOptions{OpenLog: openLog, Pool: ref.Pool}); err != nil {
		return errors.Join(why, errs.Wrap(errs.KindOf(err), err,
			"remove the half-made disk %s", ref.URL))
	}
	return why
}

// fillWithFileSystem makes ext4 in a sparse file and copies what that holds, which needs neither
// root nor the kernel, and writes little, whatever the size.
func fillWithFileSystem(ctx context.Context, dev disk.Device, label string) (err error) {
	dir, err := os.MkdirTemp("", "sluice-mkfs-")
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "make a temporary directory").WithRemedy(
			"set TMPDIR to a directory that can be written")
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	f, err := os.OpenFile(filepath.Join(dir, "raw"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "make a temporary file")
	}
	defer f.Close()
	if err := f.Truncate(dev.Size()); err != nil {
		return errs.Wrap(errs.Exhausted, err, "make a sparse file of %s", byteCount(dev.Size())).
			WithRemedy(
				"set TMPDIR to a file system that can hold one; or serve the disk and make the file system there")
	}
	if err := frontend.Mkfs(ctx, f.Name(), frontend.MkfsOptions{Label: label}); err != nil {
		return err
	}
	_, err = transfer.Import(ctx, dev, f, nil)
	return err
}
