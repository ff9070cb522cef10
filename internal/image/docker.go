package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	dockerManifest = "manifest.json"
	maxDocument    = 16 << 20 // bytes of a manifest or a config
)

// saved is the directory of an unpacked `docker save` archive as a Source, as it was before such
// archives were OCI layouts too.
type saved string

// manifest is one image of such an archive; all names are of files in it.
type manifest struct {
	Config string
	Layers []string
}

func (s saved) tree(ctx context.Context, temp string, limit bounds) (contents, error) {
	root, err := os.OpenRoot(string(s))
	if err != nil {
		return contents{}, errs.Wrap(errs.Unavailable, err, "open the Docker archive")
	}
	defer root.Close()
	m, config, err := s.read(root)
	if err != nil {
		return contents{}, err
	}
	if config.OS != "linux" || config.Architecture != runtime.GOARCH {
		return contents{}, errs.New(errs.Unsupported,
			"the Docker archive holds an image for %s/%s, not for linux/%s",
			config.OS, config.Architecture, runtime.GOARCH).
			WithRemedy("pull and save the one for this platform")
	}
	dir := filepath.Join(temp, "docker")
	return contents{dir: dir, config: configOf(config)}, fill(dir, limit, func(t *tree) error {
		for i, name := range m.Layers {
			if err := applySaved(ctx, t, root, name, config.RootFS.DiffIDs[i]); err != nil {
				return fmt.Errorf("layer %d of %d: %w", i+1, len(m.Layers), err)
			}
		}
		return nil
	})
}

// read returns the one image of the archive.
func (s saved) read(root *os.Root) (manifest, *v1.ConfigFile, error) {
	var all []manifest
	if err := readDocument(root, dockerManifest, &all); err != nil {
		return manifest{}, nil, err
	}
	if len(all) != 1 {
		return manifest{}, nil, errs.New(errs.Invalid, "the Docker archive holds %d images",
			len(all)).WithRemedy("save just one")
	}
	var config v1.ConfigFile
	if err := readDocument(root, all[0].Config, &config); err != nil {
		return manifest{}, nil, err
	}
	if layers, ids := len(all[0].Layers), len(config.RootFS.DiffIDs); layers == 0 || layers != ids {
		return manifest{}, nil, errs.New(errs.Invalid,
			"the Docker archive has %d layers, and digests of %d", layers, ids).
			WithRemedy("save the image again")
	}
	return all[0], &config, nil
}

func readDocument(root *os.Root, name string, into any) error {
	f, err := openPlain(root, name, maxDocument)
	if err != nil {
		return errs.Wrap(errs.Invalid, err,
			"the Docker archive isn't whole").WithRemedy("save the image again")
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, maxDocument)).Decode(into); err != nil {
		return errs.Wrap(errs.Invalid, err, "read %s of the Docker archive", name).
			WithRemedy("save the image again")
	}
	return nil
}

// applySaved unpacks a layer and checks its digest, which is of what it is uncompressed.
func applySaved(ctx context.Context, t *tree, root *os.Root, name string, want v1.Hash) error {
	f, err := openPlain(root, name, 0)
	var path *fs.PathError // of os.Root, also for a name that leads out of it
	if errors.Is(err, fs.ErrNotExist) || errs.Is(err, errs.Invalid) ||
		errors.As(err, &path) && !errors.As(err, new(unix.Errno)) {
		return errs.Wrap(errs.Invalid, err,
			"the Docker archive isn't whole").WithRemedy("save the image again")
	}
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "open")
	}
	defer f.Close()
	plain, err := decompress(f)
	if err != nil {
		return err
	}
	defer plain.Close()
	hash := sha256.New()
	hashed := io.TeeReader(plain, hash)
	unpackErr := unpack(ctx, t, hashed, true)
	if _, err := io.Copy(io.Discard, hashed); err != nil {
		return readError(err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); want.Algorithm != "sha256" || got != want.Hex {
		return errs.New(errs.Corrupt, "digest is sha256:%s, should be %s", got, want).
			WithRemedy("save the image again")
	}
	return unpackErr
}
