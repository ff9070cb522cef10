package image

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/transfer"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	// Checkpoint is the name of the checkpoint that machines' disks are forks of.
	Checkpoint = "base"

	holder      = "image-build"
	generation  = 1
	cleanupWait = 30 * time.Second
)

// BuildConfig says what to build.
type BuildConfig struct {
	Store blob.Store
	Name  string // of the image; becomes the file system's label and UUID
	// of the template disk, which must not exist; default disks/image-<name>-<random>
	DiskPath string
	Size     int64 // of the disk in bytes; a multiple of disk.BlockSize, at least 16 MiB
	Source   Source
	// directory for the unpacked tree and the sparse file; default the system's
	TempDir string
	// MaxStored is what the unpacked tree may take in TempDir, in bytes; default 64 GiB.
	MaxStored int64
	Progress  func(done, total int64) // bytes imported; may be nil
}

// MakeConfig says which raw image to make.
type MakeConfig struct {
	Name      string // becomes the file system's label and UUID
	Size      int64  // bytes
	Temp      string // an empty directory, which gets the image
	MaxStored int64  // as in BuildConfig
}

// Made is a raw image.
type Made struct {
	Raw    string  // its file
	Config *Config // as in Result, as are Notes
	Notes  []string
}

// Maker makes a raw image of a tar stream, elsewhere than in this process perhaps.
type Maker func(ctx context.Context, cfg MakeConfig, tar io.Reader) (Made, error)

// Make makes a raw image in this process.
func Make(ctx context.Context, cfg MakeConfig, source Source) (Made, error) {
	found, err := source.tree(ctx, cfg.Temp, boundsOf(cfg.Size, cfg.MaxStored))
	if err != nil {
		return Made{}, fmt.Errorf("files of image %s: %w", cfg.Name, err)
	}
	raw := filepath.Join(cfg.Temp, "raw.img")
	notes, err := makeRaw(ctx, raw, cfg.Name, found.dir, cfg.Size)
	if err != nil {
		return Made{}, fmt.Errorf("file system of image %s: %w", cfg.Name, err)
	}
	if note := found.config.note(); note != "" {
		notes = append(notes, note)
	}
	return Made{Raw: raw, Config: found.config, Notes: notes}, nil
}

// MadeBy returns a Source that is what another makes of a tar stream.
func MadeBy(maker Maker, tar io.Reader) Source { return madeBy{maker, tar} }

type madeBy struct {
	maker Maker
	tar   io.Reader
}

func (madeBy) tree(context.Context, string, bounds) (contents, error) {
	return contents{}, errs.New(errs.Internal, "an image that another makes has no tree here")
}

// raw makes the raw image of a build.
func (cfg *BuildConfig) raw(ctx context.Context, temp string) (Made, error) {
	m := MakeConfig{Name: cfg.Name, Size: cfg.Size, Temp: temp, MaxStored: cfg.MaxStored}
	if s, ok := cfg.Source.(madeBy); ok {
		return s.maker(ctx, m, s.tar)
	}
	return Make(ctx, m, cfg.Source)
}

// Result describes a template disk that is ready to be forked.
type Result struct {
	DiskPath   string
	Checkpoint string
	SizeBytes  int64 // of the disk
	DataBytes  int64 // of it, written

	Config *Config  // of an OCI or Docker image; nil for files alone
	Notes  []string // what the image leaves out or has otherwise than its source, for people
}

// Build makes a template disk. It can be called again after any error: each call makes a new disk,
// unless DiskPath is given, and nobody knows the disk before Build has returned. A failed build
// removes what it has written, as far as the store allows.
func Build(ctx context.Context, cfg BuildConfig) (_ Result, err error) {
	if err := cfg.validate(); err != nil {
		return Result{}, err
	}
	temp, err := os.MkdirTemp(cfg.TempDir, "sluice-image-")
	if err != nil {
		return Result{}, errs.Wrap(errs.Unavailable, err, "make a temporary directory")
	}
	defer func() {
		if removeErr := os.RemoveAll(temp); removeErr != nil && err == nil {
			err = errs.Wrap(errs.Unavailable, removeErr, "remove temporary files")
		}
	}()
	made, err := cfg.raw(ctx, temp)
	if err != nil {
		return Result{}, err
	}
	res, err := cfg.store(ctx, made.Raw)
	res.Config, res.Notes = made.Config, made.Notes
	return res, err
}

func (cfg *BuildConfig) validate() error {
	switch {
	case cfg.Name == "" || strings.ContainsAny(cfg.Name, "/\x00"):
		return errs.New(errs.Invalid, "bad image name %q", cfg.Name)
	case cfg.Size < minSize || cfg.Size%disk.BlockSize != 0 || cfg.Size > disk.MaxSize:
		return errs.New(errs.Invalid, "image size of %d bytes", cfg.Size).
			WithRemedy("use a multiple of %d bytes, from %d MiB to 16 TiB",
				disk.BlockSize, minSize>>20)
	case cfg.Source == nil || cfg.Store == nil:
		return errs.New(errs.Internal, "image build without a source or a store")
	}
	if cfg.DiskPath == "" {
		cfg.DiskPath = "disks/image-" + cfg.Name + "-" + strings.ToLower(rand.Text()[:12])
	}
	return nil
}

// store makes the template disk from a raw file.
func (cfg *BuildConfig) store(ctx context.Context, raw string) (_ Result, err error) {
	f, err := os.OpenFile(raw, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return Result{}, errs.Wrap(errs.Unavailable, err, "open the raw image")
	}
	defer f.Close()
	if _, err := disk.Create(ctx, cfg.Store, cfg.DiskPath,
		disk.CreateOptions{Size: cfg.Size}); err != nil {
		return Result{}, fmt.Errorf("create template disk %s: %w", cfg.DiskPath, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, cfg.discard(ctx))
		}
	}()
	written, err := cfg.write(ctx, f)
	if err != nil {
		return Result{}, fmt.Errorf("write template disk %s: %w", cfg.DiskPath, err)
	}
	return Result{DiskPath: cfg.DiskPath, Checkpoint: Checkpoint, SizeBytes: cfg.Size,
		DataBytes: written}, nil
}

func (cfg *BuildConfig) write(ctx context.Context, raw *os.File) (int64, error) {
	d, err := disk.Attach(ctx, cfg.Store, cfg.DiskPath,
		disk.AttachOptions{Generation: generation, Holder: holder})
	if err != nil {
		return 0, err
	}
	written, err := transfer.Import(ctx, d, raw, cfg.Progress)
	if err == nil {
		_, err = d.Checkpoint(ctx, Checkpoint)
	}
	if err != nil {
		d.Abandon()
		return 0, err
	}
	return written, d.Close(ctx)
}

// discard removes what a failed build has written. It is safe because this call has created the
// disk, and nobody else knows it.
func (cfg *BuildConfig) discard(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupWait)
	defer cancel()
	var keys []string
	err := cfg.Store.List(ctx, cfg.DiskPath+"/", "", func(e blob.Entry) bool {
		keys = append(keys, e.Key)
		return true
	})
	for _, key := range keys {
		err = errors.Join(err, cfg.Store.Delete(ctx, key))
	}
	if err != nil {
		return fmt.Errorf("remove half-built template disk %s: %w", cfg.DiskPath, err)
	}
	return nil
}
