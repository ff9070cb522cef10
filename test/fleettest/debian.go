package fleettest

import (
	"context"
	"io"
	"path/filepath"
	"sync"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/image"
)

// CreateDebianImage makes an image of a minimal Debian with the given packages. The tree is made
// the first time, which takes a mirror and a minute or more, and kept in the repository's cache.
func (f *Fleet) CreateDebianImage(name string, size int64, packages ...string) api.Image {
	f.t.Helper()
	tree, err := image.Debian(f.t.Context(), image.DebianOptions{
		Include: packages, Cache: image.Cache{Dir: filepath.Join(repositoryRoot(f.t),
			".cache/debian")},
	})
	if err != nil {
		f.t.Fatalf("make a Debian with %v: %v", packages, err)
	}
	defer tree.Close()
	ctx, cancel := context.WithCancel(f.t.Context())
	out, in := io.Pipe()
	var packing sync.WaitGroup
	// the reader gets the error
	packing.Go(func() { in.CloseWithError(image.Pack(ctx, tree.Dir(), in)) })
	img, err := f.CreateImage(ctx, name, size, out)
	cancel()
	out.Close()
	packing.Wait()
	if err != nil {
		f.t.Fatalf("create image %s: %v", name, err)
	}
	return img
}
