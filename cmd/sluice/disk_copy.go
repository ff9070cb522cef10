package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/transfer"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const rawFormat = "raw"

func newDiskImportCommand(d *deps) *cobra.Command {
	var format, size string
	var encrypt bool
	cmd := &cobra.Command{
		Use:   "import FILE URL",
		Short: "Make a new disk from an image file",
		Long: `Make a new disk from an image file. Raw images are read as they are; qcow2, which is recognized, and whatever
else --format names are read by qemu-img, where that is installed. Holes and zeros are not stored. An image
that refers to other files is refused. If it fails, no disk is left.
` + exitTable,
		Example: `  sluice disk import debian.qcow2 s3://bucket/disks/vm-1 --size 20GiB
  sluice disk import disk.img file:///srv/pool/disks/vm-1`,
		Args: exactly("an image file", "a disk URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			info, err := d.importDisk(cmd.Context(), args[0], args[1], format, size, encrypt)
			if err != nil {
				return err
			}
			return d.result(info, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s  %s\n", info.URL, byteCount(info.SizeBytes))
				return err
			})
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "format of the image: raw, qcow2, vmdk, … (default: qcow2 if it is one, else raw)")
	cmd.Flags().StringVar(&size, "size", "", "size of the disk; a bare number is in GiB (default: the image's)")
	addEncrypt(cmd, &encrypt)
	return d.addKeyFlags(cmd)
}

func (d *deps) importDisk(ctx context.Context, file, url, format, size string, encrypt bool) (api.DiskInfo, error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return api.DiskInfo{}, errs.Wrap(errs.NotFound, err, "there is no image").WithRemedy("check the path; the image comes first, then the URL")
	}
	if err != nil {
		return api.DiskInfo{}, errs.Wrap(errs.Denied, err, "open the image")
	}
	defer f.Close()
	image, err := probeImage(ctx, f, format)
	if err != nil {
		return api.DiskInfo{}, err
	}
	bytes := wholeBlocks(image.Size)
	if size != "" {
		if bytes, err = diskSize(size); err != nil {
			return api.DiskInfo{}, err
		}
	}
	if bytes < image.Size || bytes == 0 {
		return api.DiskInfo{}, errs.New(errs.Invalid, "a disk of %s for an image of %s", byteCount(bytes), byteCount(image.Size)).
			WithRemedy("give it at least the image's size")
	}
	key, err := d.newDiskKey(encrypt)
	if err != nil {
		return api.DiskInfo{}, err
	}
	return d.newDisk(ctx, url, disk.CreateOptions{Size: bytes, Key: key}, func(ctx context.Context, dev disk.Device) error {
		bar := d.newDiskBar(ctx, "importing", countsBytes)
		defer bar.end()
		if image.Format == rawFormat {
			_, err := transfer.Import(ctx, dev, f, bar.set)
			return err
		}
		return transfer.ImportImage(ctx, dev, file, image.Format, bar.set)
	})
}

// probeImage returns an image's format and size.
func probeImage(ctx context.Context, f *os.File, format string) (transfer.Image, error) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return transfer.Image{}, errs.New(errs.Invalid, "%s is no regular file", f.Name()).WithRemedy("copy it to a file first")
	}
	magic := make([]byte, 4)
	if n, err := f.ReadAt(magic, 0); err != nil && !(errors.Is(err, io.EOF) && n < 4) {
		return transfer.Image{}, errs.Wrap(errs.Unavailable, err, "read the image")
	}
	if format == "" && string(magic) == "QFI\xfb" {
		format = "qcow2"
	}
	if format == "" || format == rawFormat {
		return transfer.Image{Format: rawFormat, Size: info.Size()}, nil
	}
	return transfer.Probe(ctx, f.Name(), format)
}

func newDiskExportCommand(d *deps) *cobra.Command {
	var format, checkpoint string
	var takeOver, noPin bool
	cmd := &cobra.Command{
		Use:   "export URL FILE",
		Short: "Write a disk, or a checkpoint of it, to an image file",
		Long: `Write a disk to an image file that isn't there yet: raw and sparse, or qcow2 and other formats by qemu-img,
where that is installed. A checkpoint can be exported at any time. A disk without --checkpoint must not be
attached, because what its writer has written last would be missing.
` + exitTable,
		Example: `  sluice disk export s3://bucket/disks/vm-1 vm-1.img
  sluice disk export s3://bucket/disks/vm-1 vm-1.qcow2 --checkpoint monday`,
		Args: exactly("a disk URL", "a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			out, err := d.exportDisk(cmd.Context(), args[0], args[1], format, checkpoint, takeOver, noPin)
			if err != nil {
				return err
			}
			return d.result(out, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s  %s, %s of it on disk\n", out.File, byteCount(out.SizeBytes), byteCount(out.StoredBytes))
				return err
			})
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "format of the image: raw, qcow2, vmdk, … (default: by the file's ending .qcow2, else raw)")
	cmd.Flags().StringVar(&checkpoint, "checkpoint", "", "the checkpoint to export")
	cmd.Flags().BoolVar(&noPin, "no-pin", false, "write nothing to the store, though a collector may delete what is read")
	addTakeOver(cmd, &takeOver)
	return d.addJournalFlags(d.addKeyFlags(cmd))
}

// exported is what disk export answers.
type exported struct {
	URL         string `json:"url"`
	Checkpoint  string `json:"checkpoint,omitempty"`
	File        string `json:"file"`
	Format      string `json:"format"`
	SizeBytes   int64  `json:"size_bytes"`
	StoredBytes int64  `json:"stored_bytes"` // that the file takes
}

func (d *deps) exportDisk(ctx context.Context, url, file, format, checkpoint string, takeOver, noPin bool) (exported, error) {
	if format == "" {
		format = rawFormat
		if strings.HasSuffix(file, ".qcow2") {
			format = "qcow2"
		}
	}
	ref, err := openDisk(ctx, url)
	if err != nil {
		return exported{}, err
	}
	defer ref.store.Close()
	if checkpoint == "" {
		if err := d.settle(ctx, ref, takeOver); err != nil {
			return exported{}, err
		}
	}
	key, err := d.diskKey()
	if err != nil {
		return exported{}, err
	}
	self, err := attachment.Self()
	if err != nil {
		return exported{}, err
	}
	dev, err := disk.OpenReadOnly(ctx, ref.store, ref.path, checkpoint, disk.ReadOnlyOptions{Key: key, Holder: self.Holder(), Unpinned: noPin})
	if err != nil {
		return exported{}, d.explainMissing(ctx, ref, err)
	}
	defer dev.Close()
	out := exported{URL: ref.url, Checkpoint: checkpoint, File: file, Format: format, SizeBytes: dev.Size()}
	if err := d.exportTo(ctx, dev, file, format); err != nil {
		return exported{}, err
	}
	out.StoredBytes, err = storedBytes(file)
	return out, err
}

// exportTo writes beside the file and gives it its name when it is whole, so that there is never half an image.
func (d *deps) exportTo(ctx context.Context, dev disk.Device, file, format string) (err error) {
	if _, err := os.Lstat(file); err == nil {
		return errs.New(errs.Exists, "%s is there already", file).WithRemedy("choose another name, or remove it")
	}
	part := filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+".part")
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return errs.Wrap(errs.Denied, err, "make %s", part)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(part))
		}
	}()
	defer f.Close()
	bar := d.newDiskBar(ctx, "exporting", countsBytes)
	defer bar.end()
	if format == rawFormat {
		_, err = transfer.Export(ctx, dev, f, bar.set)
	} else {
		err = transfer.ExportImage(ctx, dev, part, format, bar.set)
	}
	if err != nil {
		return err
	}
	if err := os.Link(part, file); err != nil { // unlike a rename, it doesn't replace what has come meanwhile
		return errs.Wrap(errs.Exists, err, "name the image")
	}
	if err := os.Remove(part); err != nil {
		return errs.Wrap(errs.Unavailable, err, "remove %s", part)
	}
	return syncDir(filepath.Dir(file))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "write out %s", dir)
	}
	return nil
}

// storedBytes returns how much of the host's disk a file takes.
func storedBytes(file string) (int64, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(file, &st); err != nil {
		return 0, errs.Wrap(errs.Unavailable, err, "look at %s", file)
	}
	return st.Blocks * 512, nil
}
