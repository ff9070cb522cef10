// Package pooldisks is the control plane's hand on the pool of disks: machines' disks are forks of
// images' checkpoints, and images are template disks in the same pool.
//
// Invariants: every call can be repeated after a crash or a lost answer, and ends in the same
// state. A disk that is there already is only taken for one's own if it is a fork of the same
// checkpoint.
package pooldisks

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/control"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/image"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// docAttempts bounds how often an owner's document is written against a changing one.
const docAttempts = 5

// Pool makes, changes and destroys disks of one pool. Safe for concurrent use.
type Pool struct {
	store   blob.Store
	base    string // the pool's URL without query
	query   string // with its "?", or empty
	tempDir string
	maker   image.Maker // nil: in this process
}

var (
	_ control.Disks  = (*Pool)(nil)
	_ control.Images = (*Pool)(nil)
)

// New returns the pool at storeURL, which store reaches. Images are unpacked in tempDir; "" means
// the system's.
func New(store blob.Store, storeURL, tempDir string, maker image.Maker) *Pool {
	base, query, has := strings.Cut(storeURL, "?")
	if has {
		query = "?" + query
	}
	return &Pool{store: store, base: strings.TrimSuffix(base, "/"), query: query, tempDir: tempDir,
		maker: maker}
}

// path returns a disk's path in the pool.
func (p *Pool) path(url string) (string, error) {
	bare, _, _ := strings.Cut(url, "?")
	path, ok := strings.CutPrefix(bare, p.base+"/")
	if !ok || path == "" {
		return "", errs.New(errs.Invalid, "disk %s is not in the pool %s", bare, p.base)
	}
	return path, nil
}

// ForkImage implements control.Disks.
func (p *Pool) ForkImage(ctx context.Context, img fleet.Image, dstURL string,
	sizeBytes int64, key disk.KEK) error {
	parent, err := p.path(img.DiskURL)
	if err != nil {
		return err
	}
	child, err := p.path(dstURL)
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.Go(func() error {
		disk.AdoptTrace(ctx, p.store, parent, img.Checkpoint)
		return nil
	})
	// without a trace the machine's first boot is slower, and nothing else
	defer func() { _ = g.Wait() }()
	_, err = disk.Fork(ctx, p.store, parent, img.Checkpoint, child,
		disk.ForkOptions{Size: sizeBytes, Key: key})
	if !errs.Is(err, errs.Exists) {
		return err
	}
	have, infoErr := disk.Info(ctx, p.store, child)
	if infoErr != nil {
		return fmt.Errorf("look at the disk that is there: %w", infoErr)
	}
	if from := have.Head.Parent; from != nil && from.Path == parent &&
		from.Checkpoint == img.Checkpoint && (have.Head.Encryption != nil) == (key != nil) {
		return nil
	}
	return err
}

// Rekey implements control.Disks.
func (p *Pool) Rekey(ctx context.Context, url string, old, next disk.KEK) error {
	path, err := p.path(url)
	if err != nil {
		return err
	}
	_, err = disk.Rekey(ctx, p.store, path, old, next)
	return err
}

// WriteOwner implements control.Disks.
func (p *Pool) WriteOwner(ctx context.Context, url string, doc []byte) error {
	path, err := p.path(url)
	if err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		old, tag, err := disk.ReadOwnerDoc(ctx, p.store, path)
		if err != nil && !errs.Is(err, errs.NotFound) {
			return err
		}
		if err == nil && bytes.Equal(old, doc) {
			return nil
		}
		_, err = disk.WriteOwnerDoc(ctx, p.store, path, doc, tag)
		if !errs.Is(err, errs.Conflict) || attempt == docAttempts {
			return err
		}
	}
}

// Destroy implements control.Disks.
func (p *Pool) Destroy(ctx context.Context, url string) error {
	path, err := p.path(url)
	if err != nil {
		return err
	}
	return disk.Destroy(ctx, p.store, path, disk.DestroyOptions{})
}

// Build implements control.Images.
func (p *Pool) Build(ctx context.Context, name fleet.ImageName, sizeBytes int64,
	tar io.Reader) (fleet.Image, error) {
	source := image.Tar(tar)
	if p.maker != nil {
		source = image.MadeBy(p.maker, tar)
	}
	built, err := image.Build(ctx, image.BuildConfig{Store: p.store, Name: string(name),
		Size: sizeBytes, Source: source, TempDir: p.tempDir})
	if err != nil {
		return fleet.Image{}, err
	}
	img := fleet.Image{Name: name, DiskURL: p.base + "/" + built.DiskPath + p.query,
		Checkpoint: built.Checkpoint,
		SizeBytes:  built.SizeBytes, CreatedAt: time.Now(), Notes: built.Notes}
	if built.Config != nil {
		config := fleet.ImageConfig(*built.Config)
		img.Config = &config
	}
	return img, nil
}
