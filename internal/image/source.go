package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Source is where an image's files come from.
type Source interface {
	// tree returns a directory with the files, which it may have made in the empty directory temp,
	// and which isn't changed. limit is what that may take.
	tree(ctx context.Context, temp string, limit bounds) (contents, error)
}

// contents is what a source holds.
type contents struct {
	dir    string
	config *Config // of an OCI or Docker image; nil for files alone
}

// Dir returns a Source of the files of a directory, with their owners. Nothing in it may change
// meanwhile. If it is an OCI image layout or an unpacked Docker archive, the Source has the files
// of that image.
type Dir string

func (d Dir) tree(ctx context.Context, temp string, limit bounds) (contents, error) {
	info, err := os.Stat(string(d))
	if err != nil || !info.IsDir() {
		return contents{}, errs.Wrap(errs.NotFound, err, "%s is not a directory", string(d))
	}
	if packaged := packagedImage(string(d)); packaged != nil {
		return packaged.tree(ctx, temp, limit)
	}
	return contents{dir: string(d)}, nil
}

// Tar returns a Source that reads a tar stream once, plain or compressed with gzip or zstd. Its
// content counts as by Dir.
func Tar(r io.Reader) Source { return &tarSource{r: r} }

type tarSource struct{ r io.Reader }

func (s *tarSource) tree(ctx context.Context, temp string, limit bounds) (contents, error) {
	dir := filepath.Join(temp, "tar")
	if err := fill(dir, limit, func(t *tree) error {
		return unpack(ctx, t, s.r,
			false)
	}); err != nil {
		return contents{}, err
	}
	return Dir(dir).tree(ctx, temp, limit)
}

// packagedImage returns the image that a directory packages, itself or in the one directory that it
// holds; nil if it is a tree of files.
func packagedImage(dir string) Source {
	for range 2 {
		if plainFile(filepath.Join(dir, "oci-layout")) {
			return OCI(dir)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil
		}
		// A root directory may have a file of that name too, and has directories by which it is
		// known.
		isRoot := slices.ContainsFunc(entries,
			func(e os.DirEntry) bool {
				return slices.Contains([]string{"bin", "etc",
					"usr"}, e.Name())
			})
		if !isRoot && plainFile(filepath.Join(dir, dockerManifest)) {
			return saved(dir)
		}
		if len(entries) != 1 || !entries[0].IsDir() {
			return nil
		}
		dir = filepath.Join(dir, entries[0].Name())
	}
	return nil
}

func plainFile(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode().IsRegular()
}

// OCI returns a Source of an OCI image layout with one image for this architecture.
type OCI string

func (o OCI) tree(ctx context.Context, temp string, limit bounds) (contents, error) {
	img, err := pick(string(o))
	if err != nil {
		return contents{}, err
	}
	layers, err := img.Layers()
	if err != nil {
		return contents{}, errs.Wrap(errs.Invalid, err, "read the OCI image")
	}
	config, err := img.ConfigFile()
	if err != nil {
		return contents{}, errs.Wrap(errs.Invalid, err, "read the OCI image's config")
	}
	dir := filepath.Join(temp, "oci")
	return contents{dir: dir, config: configOf(config)}, fill(dir, limit, func(t *tree) error {
		for i, layer := range layers {
			if err := applyLayer(ctx, t, layer); err != nil {
				return fmt.Errorf("layer %d of %d: %w", i+1, len(layers), err)
			}
		}
		return nil
	})
}

// applyLayer unpacks a layer, reads it to the end, and checks its digest, which nothing else does.
func applyLayer(ctx context.Context, t *tree, layer v1.Layer) error {
	want, err := layer.Digest()
	if err != nil {
		return errs.Wrap(errs.Invalid, err, "digest")
	}
	r, err := layer.Compressed()
	if err != nil {
		return errs.Wrap(errs.Invalid, err, "open")
	}
	hash := sha256.New()
	hashed := io.TeeReader(r, hash)
	unpackErr := unpack(ctx, t, hashed, true)
	_, err = io.Copy(io.Discard, hashed)
	if err = errors.Join(err, r.Close()); err != nil {
		return readError(err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); want.Algorithm != "sha256" || got != want.Hex {
		return errs.New(errs.Corrupt, "digest is sha256:%s, should be %s", got, want).
			WithRemedy("export or copy the archive again")
	}
	return unpackErr
}

// fill makes the directory dir and has it filled.
func fill(dir string, limit bounds, with func(*tree) error) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return errs.Wrap(errs.Unavailable, err, "make a temporary directory")
	}
	t, err := openTree(dir, limit)
	if err != nil {
		return err
	}
	defer t.close()
	if err := with(t); err != nil {
		return err
	}
	if err := t.finish(); err != nil {
		return errs.Wrap(errs.Unavailable, err, "set directory times")
	}
	return nil
}
