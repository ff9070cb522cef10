// Package pooldisks is the control plane's hand on the pool of disks: it forks images, writes owners'
// documents, destroys disks and builds images, with the server's own credentials.
//
// Invariants: every method may be repeated after a crash at any point and then succeeds without a second
// effect; all disks are of the one pool that the store is rooted at.
package pooldisks

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/image"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const ownerAttempts = 5

// Pool is a pool of disks. Safe for concurrent use.
type Pool struct {
	store blob.Store
	url   string // of the store
	temp  string // for images being built
}

// New returns the pool at url, of which store is open. Images are built in the directory temp.
func New(store blob.Store, url, temp string) *Pool { return &Pool{store: store, url: url, temp: temp} }

// path returns the path in the pool of a disk URL of it.
func (p *Pool) path(diskURL string) (string, error) {
	pool, path, err := blobs.SplitDiskURL(diskURL)
	if err != nil {
		return "", err
	}
	if pool != p.url {
		return "", errs.New(errs.Invalid, "disk %s is not in the fleet's store %s", diskURL, p.url)
	}
	return path, nil
}

// ForkImage makes the disk at dstURL a fork of the image's checkpoint; it succeeds if it is that already.
func (p *Pool) ForkImage(ctx context.Context, img fleet.Image, dstURL string, sizeBytes int64) error {
	src, err := p.path(img.DiskURL)
	if err != nil {
		return err
	}
	dst, err := p.path(dstURL)
	if err != nil {
		return err
	}
	_, err = disk.Fork(ctx, p.store, src, img.Checkpoint, dst, disk.ForkOptions{Size: sizeBytes})
	if !errs.Is(err, errs.Exists) {
		return err
	}
	info, infoErr := disk.Info(ctx, p.store, dst)
	if infoErr != nil {
		return infoErr
	}
	if parent := info.Head.Parent; parent == nil || parent.Path != src || parent.Checkpoint != img.Checkpoint {
		return err
	}
	return nil
}

// WriteOwner writes the owner's document of a disk, replacing an older one.
func (p *Pool) WriteOwner(ctx context.Context, url string, doc []byte) error {
	path, err := p.path(url)
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		have, etag, err := disk.ReadOwnerDoc(ctx, p.store, path)
		if err == nil && bytes.Equal(have, doc) {
			return nil
		}
		if err != nil && !errs.Is(err, errs.NotFound) {
			return err
		}
		if _, err = disk.WriteOwnerDoc(ctx, p.store, path, doc, etag); err == nil || try == ownerAttempts {
			return err
		}
	}
}

// Destroy removes a disk; what forks of it depend on stays. A missing disk is no error.
func (p *Pool) Destroy(ctx context.Context, url string) error {
	path, err := p.path(url)
	if err != nil {
		return err
	}
	return disk.Destroy(ctx, p.store, path)
}

// Build builds an image from a tar stream.
func (p *Pool) Build(ctx context.Context, name fleet.ImageName, sizeBytes int64, tar io.Reader) (fleet.Image, error) {
	r, err := image.Build(ctx, image.BuildConfig{Store: p.store, Name: string(name), Size: sizeBytes,
		Source: image.Tar(tar), TempDir: p.temp})
	if err != nil {
		return fleet.Image{}, err
	}
	url, err := blobs.JoinDiskURL(p.url, strings.TrimPrefix(r.DiskPath, "/"))
	if err != nil {
		return fleet.Image{}, fmt.Errorf("name the disk of image %s: %w", name, err)
	}
	return fleet.Image{Name: name, DiskURL: url, Checkpoint: r.Checkpoint, SizeBytes: r.SizeBytes, CreatedAt: time.Now().UTC()}, nil
}
