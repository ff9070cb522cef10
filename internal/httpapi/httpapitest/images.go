package httpapitest

import (
	"context"
	"io"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// CreateImage implements fleet.Images. It reads the whole archive.
func (f *Fleet) CreateImage(_ context.Context, name fleet.ImageName, size int64,
	tar io.Reader) (fleet.Image, error) {
	f.mu.Lock()
	_, exists := f.images[name]
	fail := f.fail
	f.mu.Unlock()
	if fail != nil {
		return fleet.Image{}, fail
	}
	if exists {
		return fleet.Image{}, errs.New(errs.Exists, "there is an image %q already", name).
			WithRemedy("choose another name")
	}
	if _, err := io.Copy(io.Discard, tar); err != nil {
		return fleet.Image{}, errs.Wrap(errs.Invalid, err, "read the archive of image %q", name)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.images[name] = fleet.Image{Name: name, DiskURL: "file:///pool/disks/img-" + string(name),
		Checkpoint: "base", SizeBytes: size, CreatedAt: f.now}
	f.mutatedLocked()
	return f.images[name], nil
}

// Images implements fleet.Images.
func (f *Fleet) Images(context.Context) ([]fleet.Image, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []fleet.Image
	for _, i := range f.images {
		out = append(out, i)
	}
	return out, f.fail
}
