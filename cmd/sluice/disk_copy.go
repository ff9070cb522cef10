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
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/transfer"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	rawFormat = "raw"
	stdStream = "-" // stdin or stdout
)

func newDiskImportCommand(d *deps) *cobra.Command {
	var in diskImport
	cmd := &cobra.Command{
		Use:   "import FILE URL",
		Short: "Make a new disk from an image file",
		Long: `Make a new disk from an image file, or from a block device. Raw images are read as
they are; qcow2, which is recognized, and what else --format names are read by
qemu-img, where that is installed. Holes and zeros are not stored. An image that
refers to other files is refused. With - for FILE, or a pipe, a raw image is read
from there, and --size says how large the disk is. If it fails, no disk is left.
` + exitTable,
		Example: `  sluice disk import debian.qcow2 s3://bucket/disks/vm-1 --size 20GiB
  sluice disk import disk.img file:///srv/pool/disks/vm-1
  zstdcat disk.img.zst | sluice disk import - s3://bucket/disks/vm-1 --size 20GiB`,
		Args: exactly("an image file", "a disk URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.file, in.url = args[0], args[1]
			info, err := d.importDisk(cmd.Context(), in)
			if err != nil {
				return err
			}
			return d.result(info, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s  %s\n", info.URL, byteCount(info.SizeBytes))
				return err
			})
		},
	}
	cmd.Flags().StringVar(&in.format, "format", "",
		"format of the image: raw, qcow2, qcow, qed, vdi, vhdx, vmdk, vpc or parallels (default: qcow2 if it is one, else raw)")
	cmd.Flags().StringVar(&in.size, "size", "",
		"size of the disk; a bare number is in GiB (default: the image's)")
	addEncrypt(cmd, &in.encrypt)
	return d.addKeyFlags(cmd)
}

func newDiskExportCommand(d *deps) *cobra.Command {
	var out diskExport
	cmd := &cobra.Command{
		Use:   "export URL FILE",
		Short: "Write a disk, or a checkpoint of it, to an image file",
		Long: `Write a disk to an image file that isn't there yet: raw and sparse, or qcow2 and
other formats by qemu-img, where that is installed. With - for FILE a raw image goes
to stdout, with its zeros. A checkpoint can be exported at any time. A disk without
--checkpoint must not be attached, because what its writer has written last would be
missing.
` + exitTable,
		Example: `  sluice disk export s3://bucket/disks/vm-1 vm-1.img
  sluice disk export s3://bucket/disks/vm-1 vm-1.qcow2 --checkpoint monday
  sluice disk export s3://bucket/disks/vm-1 - | zstd > vm-1.img.zst`,
		Args: exactly("a disk URL", "a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			out.url, out.file = args[0], args[1]
			done, err := d.exportDisk(cmd.Context(), out)
			if err != nil || args[1] == stdStream {
				return err
			}
			return d.result(done, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s  %s, %s of it on disk\n", done.File,
					byteCount(done.SizeBytes), byteCount(done.StoredBytes))
				return err
			})
		},
	}
	cmd.Flags().StringVar(&out.format, "format", "",
		"format of the image: raw, qcow2, qcow, qed, vdi, vhdx, vmdk, vpc or parallels (default: by the file's ending .qcow2, else raw)")
	cmd.Flags().StringVar(&out.checkpoint, "checkpoint", "", "the checkpoint to export")
	cmd.Flags().BoolVar(&out.noPin, "no-pin", false,
		"write nothing to the store, though a collector may delete what is read")
	addTakeOver(cmd, &out.takeOver)
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

// diskExport says what is written of which disk, and where to.
type diskExport struct {
	url, checkpoint string
	file, format    string
	takeOver, noPin bool
}

func (d *deps) exportDisk(ctx context.Context, out diskExport) (exported, error) {
	file, format, checkpoint := out.file, out.format, out.checkpoint
	if format == "" {
		format = rawFormat
		if strings.HasSuffix(file, ".qcow2") {
			format = "qcow2"
		}
	}
	if file == stdStream && format != rawFormat {
		return exported{}, usageError("only a raw image can be written to a pipe")
	}
	ref, err := d.openDisk(ctx, out.url)
	if err != nil {
		return exported{}, err
	}
	defer ref.Store.Close()
	if checkpoint == "" {
		if err := d.settle(ctx, ref, out.takeOver); err != nil {
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
	dev, err := disk.OpenReadOnly(ctx, ref.Store, ref.Path, checkpoint,
		disk.ReadOnlyOptions{Key: key, Holder: self.Holder(), Unpinned: out.noPin})
	if err != nil {
		return exported{}, ref.Explain(ctx, err)
	}
	defer dev.Close()
	done := exported{URL: ref.URL, Checkpoint: checkpoint, File: file, Format: format,
		SizeBytes: dev.Size()}
	if file == stdStream {
		bar := d.newDiskBar(ctx, "exporting", countsBytes)
		defer bar.end()
		return done, transfer.ExportStream(ctx, dev, d.stdout, bar.set)
	}
	if err := d.exportTo(ctx, dev, file, format); err != nil {
		return exported{}, err
	}
	done.StoredBytes, err = storedBytes(file)
	return done, err
}

// exportTo writes beside the file and gives it its name when it is whole, so that there is never
// half an image.
func (d *deps) exportTo(ctx context.Context, dev disk.Device, file, format string) (err error) {
	if _, err := os.Lstat(file); err == nil {
		return errs.New(errs.Exists, "%s is there already", file).
			WithRemedy("choose another name, or remove it; - is stdout")
	}
	base := filepath.Base(file)
	// two exports never share one
	f, err := os.CreateTemp(filepath.Dir(file), "."+base[:min(len(base), maxPartName)]+".*.part")
	if err != nil {
		return errs.Wrap(errs.Denied, err, "make a file beside %s", file)
	}
	part := f.Name()
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
	if err == nil {
		err = nameNew(part, file)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(file))
}

// maxPartName is how many bytes of a file's name are in the one that it has while it is written.
const maxPartName = 100

// nameNew gives a file its name, unless somebody else has that by now. Not all file systems can do
// so in one step.
func nameNew(part, file string) error {
	err := unix.Renameat2(unix.AT_FDCWD, part, unix.AT_FDCWD, file, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		err = claimName(part, file)
	}
	if errors.Is(err, os.ErrExist) {
		return errs.Wrap(errs.Exists, err, "%s has come to be there meanwhile", file).
			WithRemedy("choose another name, or remove it")
	}
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "name the image %s", file)
	}
	return nil
}

// claimName makes an empty file of that name first, which nobody else can then make.
func claimName(part, file string) error {
	claim, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(claim.Close(), os.Rename(part, file))
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
