package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/transfer"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const qcow2Magic = "QFI\xfb"

// diskImport says which image becomes which disk.
type diskImport struct {
	file, format string
	url, size    string
	encrypt      bool
}

func (d *deps) importDisk(ctx context.Context, in diskImport) (api.DiskInfo, error) {
	file := in.file
	if file == stdStream {
		in.file = "stdin"
		return d.importStream(ctx, d.stdin, in)
	}
	f, err := openImage(file)
	if err != nil {
		return api.DiskInfo{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return api.DiskInfo{}, errs.Wrap(errs.Unavailable, err, "look at the image")
	}
	switch kind := info.Mode() & os.ModeType; kind {
	case 0, os.ModeDevice:
	case os.ModeNamedPipe:
		return d.importStream(ctx, f, in)
	default:
		return api.DiskInfo{}, errs.New(errs.Invalid, "%s is no file, block device or pipe", file).
			WithRemedy("copy it to a file first")
	}
	image, err := probeImage(ctx, f, in.format)
	if err != nil {
		return api.DiskInfo{}, err
	}
	total := wholeBlocks(image.Size)
	if in.size != "" {
		if total, err = diskSize(in.size); err != nil {
			return api.DiskInfo{}, err
		}
	}
	if total < image.Size || total == 0 {
		return api.DiskInfo{}, errs.New(errs.Invalid, "a disk of %s for an image of %s",
			byteCount(total), byteCount(image.Size)).
			WithRemedy("give it at least the image's size")
	}
	key, err := d.newDiskKey(in.encrypt)
	if err != nil {
		return api.DiskInfo{}, err
	}
	return d.newDisk(ctx, in.url, disk.CreateOptions{Size: total, Key: key},
		func(ctx context.Context, dev disk.Device) error {
			bar := d.newDiskBar(ctx, "importing", countsBytes)
			defer bar.end()
			if image.Format == rawFormat {
				_, err := transfer.Import(ctx, dev, f, bar.set)
				return err
			}
			return transfer.ImportImage(ctx, dev, file, image.Format, bar.set)
		})
}

// openImage opens an image. A pipe is waited for, until somebody writes to it.
func openImage(file string) (*os.File, error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errs.Wrap(errs.NotFound, err,
			"there is no image").WithRemedy("check the path; the image comes first, then the URL")
	}
	if err != nil {
		return nil, errs.Wrap(errs.Denied, err, "open the image")
	}
	return f, nil
}

// importStream makes a disk from what can be read only once, whose size and format can't be seen
// beforehand.
func (d *deps) importStream(ctx context.Context, from io.Reader,
	in diskImport) (api.DiskInfo, error) {
	name, format := in.file, in.format
	if format != "" && format != rawFormat {
		return api.DiskInfo{}, usageError(
			"only a raw image can be read from %s; of format %s, write it to a file first", name,
			format)
	}
	if in.size == "" {
		return api.DiskInfo{}, usageError(
			"how large an image from %s is can't be seen: say by --size how large the disk is",
			name)
	}
	total, err := diskSize(in.size)
	if err != nil {
		return api.DiskInfo{}, err
	}
	key, err := d.newDiskKey(in.encrypt)
	if err != nil {
		return api.DiskInfo{}, err
	}
	return d.newDisk(ctx, in.url, disk.CreateOptions{Size: total, Key: key},
		func(ctx context.Context, dev disk.Device) error {
			bar := d.newDiskBar(ctx, "importing", countsBytes)
			defer bar.end()
			begin := make([]byte, len(qcow2Magic))
			n, err := io.ReadFull(from, begin)
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return errs.Wrap(errs.Unavailable, err, "read the image")
			}
			if string(begin) == qcow2Magic && format == "" {
				return errs.New(errs.Invalid, "the image from %s is a qcow2", name).
					WithRemedy(
						"write it to a file first; or say --format raw if the disk is to hold it as it is")
			}
			read, err := transfer.ImportStream(ctx, dev,
				io.MultiReader(bytes.NewReader(begin[:n]), from), bar.set)
			if err == nil && read == 0 {
				err = errs.New(errs.Invalid, "there was nothing on %s", name).WithRemedy(
					"look whether what writes to it has failed; or use: sluice disk create")
			}
			return err
		})
}

// probeImage returns an image's format and size.
func probeImage(ctx context.Context, f *os.File, format string) (transfer.Image, error) {
	magic := make([]byte, len(qcow2Magic))
	if n, err := f.ReadAt(magic, 0); err != nil && !(errors.Is(err, io.EOF) && n < len(magic)) {
		return transfer.Image{}, errs.Wrap(errs.Unavailable, err, "read the image")
	}
	if format == "" && string(magic) == qcow2Magic {
		format = "qcow2"
	}
	if format == "" || format == rawFormat {
		size, err := f.Seek(0, io.SeekEnd) // of a block device too
		if err != nil {
			return transfer.Image{}, errs.Wrap(errs.Unavailable, err,
				"look at the size of the image")
		}
		return transfer.Image{Format: rawFormat, Size: size}, nil
	}
	return transfer.Probe(ctx, f.Name(), format)
}
