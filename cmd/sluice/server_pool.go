package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/control"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/image"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// diskPool is the fleet's store as the control plane sees it: disks and images by URL. Every method can be
// repeated after a crash.
type diskPool struct {
	url   string
	store blob.Store
	temp  string // for images being built
}

var (
	_ control.Disks  = (*diskPool)(nil)
	_ control.Images = (*diskPool)(nil)
)

// prepare makes the directory for builds; what an earlier process left half-built goes.
func (p *diskPool) prepare() error {
	if err := os.RemoveAll(p.temp); err != nil {
		return fmt.Errorf("remove half-built images: %w", err)
	}
	if err := os.MkdirAll(p.temp, 0o700); err != nil {
		return fmt.Errorf("make the directory for image builds: %w", err)
	}
	return nil
}

// path returns where a disk is in the pool. A disk elsewhere is not ours to touch.
func (p *diskPool) path(diskURL string) (string, error) {
	pool, path, err := blobs.SplitDiskURL(diskURL)
	if err != nil {
		return "", err
	}
	if want, err := blobs.JoinDiskURL(p.url, path); err != nil || want != diskURL {
		return "", errs.New(errs.Invalid, "disk %s is in the pool %s and not in this fleet's", diskURL, pool)
	}
	return path, nil
}

// ForkImage implements control.Disks.
func (p *diskPool) ForkImage(ctx context.Context, img fleet.Image, dstURL string, sizeBytes int64) error {
	from, err := p.path(img.DiskURL)
	if err != nil {
		return err
	}
	to, err := p.path(dstURL)
	if err != nil {
		return err
	}
	_, err = disk.Fork(ctx, p.store, from, img.Checkpoint, to, disk.ForkOptions{Size: sizeBytes})
	if !errs.Is(err, errs.Exists) {
		return err
	}
	have, infoErr := disk.Info(ctx, p.store, to)
	if infoErr != nil {
		return infoErr
	}
	if parent := have.Head.Parent; parent == nil || parent.Path != from || parent.Checkpoint != img.Checkpoint {
		return err // somebody else's
	}
	return nil
}

// WriteOwner implements control.Disks.
func (p *diskPool) WriteOwner(ctx context.Context, url string, doc []byte) error {
	path, err := p.path(url)
	if err != nil {
		return err
	}
	const attempts = 5
	for range attempts {
		_, etag, readErr := disk.ReadOwnerDoc(ctx, p.store, path)
		if readErr != nil && !errs.Is(readErr, errs.NotFound) {
			return readErr
		}
		if _, err = disk.WriteOwnerDoc(ctx, p.store, path, doc, etag); !errs.Is(err, errs.Conflict) {
			return err
		}
	}
	return err
}

// Destroy implements control.Disks.
func (p *diskPool) Destroy(ctx context.Context, url string) error {
	path, err := p.path(url)
	if err != nil {
		return err
	}
	return disk.Destroy(ctx, p.store, path)
}

// Build implements control.Images.
func (p *diskPool) Build(ctx context.Context, name fleet.ImageName, sizeBytes int64, tar io.Reader) (fleet.Image, error) {
	r, err := image.Build(ctx, image.BuildConfig{Store: p.store, Name: string(name), Size: sizeBytes, Source: image.Tar(tar), TempDir: p.temp})
	if err != nil {
		return fleet.Image{}, err
	}
	url, err := blobs.JoinDiskURL(p.url, r.DiskPath)
	if err != nil {
		return fleet.Image{}, err
	}
	return fleet.Image{Name: name, DiskURL: url, Checkpoint: r.Checkpoint, SizeBytes: r.SizeBytes, CreatedAt: time.Now().UTC()}, nil
}
