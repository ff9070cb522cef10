package image

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	maxIndexDepth = 8   // of an index in an index
	maxManifests  = 256 // in all indexes
	// maxLayers is four times what other engines take. To find each, the package that reads images
	// reads the whole manifest.
	maxLayers = 512
)

// checkLayout returns an error unless a directory with an OCI layout has plain files and
// directories only, of which its index has a size that one has. The package that reads it opens
// what it finds.
func checkLayout(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "open the OCI layout")
	}
	defer root.Close()
	f, err := openPlain(root, "index.json", maxDocument)
	if err != nil {
		return errs.Wrap(errs.Invalid, err, "read the OCI layout")
	}
	if err := f.Close(); err != nil {
		return errs.Wrap(errs.Unavailable, err, "read the OCI layout")
	}
	info, err := root.Lstat("blobs")
	if err == nil && !info.IsDir() {
		err = notPlain("blobs", info.Mode())
	}
	if err != nil {
		return errs.Wrap(errs.Invalid, err, "read the OCI layout")
	}
	return fs.WalkDir(root.FS(), "blobs", func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && !e.Type().IsRegular() {
			err = notPlain(name, e.Type())
		}
		if err != nil {
			return errs.Wrap(errs.Invalid, err, "read the OCI layout")
		}
		return nil
	})
}

// picker looks for the one image of a layout that is for this architecture.
type picker struct {
	dir       string
	manifests int
	found     v1.Image
	platforms []string
}

// pick returns the one image of a layout that is for this architecture, through nested indexes.
func pick(dir string) (v1.Image, error) {
	if err := checkLayout(dir); err != nil {
		return nil, err
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "read the OCI layout")
	}
	p := &picker{dir: dir}
	if err := p.index(index, 1); err != nil {
		return nil, err
	}
	if p.found == nil {
		return nil, errs.New(errs.Unsupported,
			"OCI layout holds no image for linux/%s, but for [%s]", runtime.GOARCH,
			strings.Join(p.platforms, " "))
	}
	manifest, err := p.found.Manifest()
	if err == nil {
		err = p.document(manifest.Config.Digest)
	}
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "read the OCI image")
	}
	if n := len(manifest.Layers); n > maxLayers {
		return nil, errs.New(errs.Invalid, "the OCI image has %d layers, more than %d", n,
			maxLayers).WithRemedy("flatten it into fewer")
	}
	return p.found, nil
}

// document returns an error if a blob has more bytes than a document has, which is read whole.
func (p *picker) document(digest v1.Hash) error {
	info, err := os.Lstat(filepath.Join(p.dir, "blobs", digest.Algorithm, digest.Hex))
	if err == nil && info.Size() > maxDocument {
		err = errs.New(errs.Invalid, "%s has %d bytes, more than %d", digest, info.Size(),
			maxDocument)
	}
	return err
}

func (p *picker) index(index v1.ImageIndex, depth int) error {
	manifest, err := index.IndexManifest()
	if err != nil {
		return errs.Wrap(errs.Invalid, err, "read the OCI index")
	}
	if p.manifests += len(manifest.Manifests); depth > maxIndexDepth ||
		p.manifests > maxManifests {
		return errs.New(errs.Invalid, "the OCI layout has more than %d manifests, or an index in "+
			"an index more than %d deep", maxManifests, maxIndexDepth).
			WithRemedy("export just one image")
	}
	for i := range manifest.Manifests {
		m := &manifest.Manifests[i]
		if m.Platform != nil {
			p.platforms = append(p.platforms, m.Platform.String())
			if m.Platform.OS != "linux" || m.Platform.Architecture != runtime.GOARCH {
				continue
			}
		}
		if err := p.manifest(index, m, depth); err != nil {
			return err
		}
	}
	return nil
}

func (p *picker) manifest(index v1.ImageIndex, m *v1.Descriptor, depth int) error {
	if !m.MediaType.IsIndex() && !m.MediaType.IsImage() {
		return nil
	}
	if err := p.document(m.Digest); err != nil {
		return errs.Wrap(errs.Invalid, err, "read the OCI index")
	}
	if m.MediaType.IsIndex() {
		nested, err := index.ImageIndex(m.Digest)
		if err != nil {
			return errs.Wrap(errs.Invalid, err, "read the OCI index")
		}
		return p.index(nested, depth+1)
	}
	img, err := index.Image(m.Digest)
	if err != nil {
		return errs.Wrap(errs.Invalid, err, "read the OCI index")
	}
	if p.found != nil {
		return errs.New(errs.Invalid, "OCI layout holds several images").
			WithRemedy("export just one")
	}
	p.found = img
	return nil
}
