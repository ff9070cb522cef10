package image_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/image"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// wanted is what the images of this file say about how they are to be run.
func wanted() v1.Config {
	return v1.Config{Env: []string{"PATH=/bin", "MODE=live"}, Entrypoint: []string{"/bin/run"},
		Cmd: []string{"--all"}, WorkingDir: "/srv", User: "www"}
}

func layers(t *testing.T) (lower, upper []byte) {
	return tarOf(t, map[string]string{"bin/": "", "bin/sh": "#!", "srv/old": "1", "srv/kept": "1"}),
		tarOf(t, map[string]string{"srv/.wh.old": "", "srv/new": "2"})
}

// savedDir makes what `docker save` wrote before it wrote OCI layouts: a link for a layer among the
// rest.
func savedDir(t *testing.T, change func(manifest map[string]any, config *v1.ConfigFile)) string {
	t.Helper()
	dir := t.TempDir()
	lower, upper := layers(t)
	config := v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH, Config: wanted(),
		RootFS: v1.RootFS{Type: "layers"}}
	for _, l := range [][]byte{lower, upper} {
		sum := sha256.Sum256(l)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs,
			v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])})
	}
	manifest := map[string]any{"Config": "c0ffee.json", "RepoTags": []string{"site:1"},
		"Layers": []string{"a/layer.tar", "b/layer.tar"}}
	if change != nil {
		change(manifest, &config)
	}
	document := func(v any) []byte {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for name, data := range map[string][]byte{"real.tar": lower, "b/layer.tar": upper,
		"c0ffee.json": document(config), "manifest.json": document([]any{manifest})} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755),
			os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "a"), 0o755),
		os.Symlink("../real.tar", filepath.Join(dir, "a/layer.tar"))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// layoutDir makes an OCI layout of the same image.
func layoutDir(t *testing.T) string {
	t.Helper()
	lower, upper := layers(t)
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer(lower, types.OCIUncompressedLayer),
		static.NewLayer(upper, types.OCIUncompressedLayer))
	if err == nil {
		img, err = mutate.Config(img, wanted())
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = path.AppendImage(img)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// under moves a directory below another, as in an archive of the directory and not of what is in
// it.
func under(t *testing.T, dir string) string {
	t.Helper()
	parent := t.TempDir()
	if err := os.Rename(dir, filepath.Join(parent, "site")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil { // the test removes it
		t.Fatal(err)
	}
	return parent
}

// An image is read out of whatever packages it, and its config is kept and named.
func TestPackagedImagesAreRead(t *testing.T) {
	tarred := func(dir string) image.Source { return image.Tar(bytes.NewReader(packed(t, dir))) }
	for what, source := range map[string]image.Source{
		"OCI layout": image.Dir(layoutDir(t)), "tar of an OCI layout": tarred(layoutDir(t)),
		"tar of its directory":     tarred(under(t, layoutDir(t))),
		"Docker directory":         image.Dir(savedDir(t, nil)),
		"Docker archive":           tarred(savedDir(t, nil)),
		"archive of its directory": tarred(under(t, savedDir(t, nil))),
	} {
		t.Run(what, func(t *testing.T) {
			store := memblob.New()
			res := build(t, store, source)
			dir := mountFork(t, store, res)
			for name, want := range map[string]string{"bin/sh": "#!", "srv/kept": "1",
				"srv/new": "2"} {
				if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil ||
					string(got) != want {
					t.Errorf("%s: %q %v", name, got, err)
				}
			}
			if _, err := os.Stat(filepath.Join(dir, "srv/old")); !os.IsNotExist(err) {
				t.Errorf("a file that the upper layer removes: %v", err)
			}
			want := &image.Config{Env: wanted().Env, Entrypoint: wanted().Entrypoint,
				Cmd: wanted().Cmd, WorkingDir: "/srv", User: "www"}
			if !reflect.DeepEqual(res.Config, want) {
				t.Errorf("config %+v", res.Config)
			}
			if len(res.Notes) != 1 || !strings.Contains(res.Notes[0],
				"Env MODE; Entrypoint /bin/run; Cmd --all; WorkingDir /srv; User www") {
				t.Errorf("notes %q", res.Notes)
			}
		})
	}
}

func TestBadPackagesAreRefused(t *testing.T) {
	for what, c := range map[string]struct {
		change func(manifest map[string]any, config *v1.ConfigFile)
		kind   errs.Kind
	}{
		"another platform": {func(_ map[string]any, c *v1.ConfigFile) { c.Architecture = "s390x" },
			errs.Unsupported},
		"missing layer": {func(m map[string]any, _ *v1.ConfigFile) {
			m["Layers"] = []string{"a/layer.tar", "no/layer.tar"}
		}, errs.Invalid},
		"layer outside": {func(m map[string]any, _ *v1.ConfigFile) {
			m["Layers"] = []string{"a/layer.tar", "../../../etc/passwd"}
		}, errs.Invalid},
		"other layers": {func(m map[string]any, _ *v1.ConfigFile) {
			m["Layers"] = []string{"b/layer.tar", "a/layer.tar"}
		}, errs.Corrupt},
		"no layers": {func(m map[string]any, _ *v1.ConfigFile) { m["Layers"] = nil },
			errs.Invalid},
		"no config": {func(m map[string]any, _ *v1.ConfigFile) { m["Config"] = "none.json" },
			errs.Invalid},
		"no digests": {func(_ map[string]any, c *v1.ConfigFile) { c.RootFS.DiffIDs = nil },
			errs.Invalid},
	} {
		source := image.Tar(bytes.NewReader(packed(t, savedDir(t, c.change))))
		_, err := image.Build(t.Context(), image.BuildConfig{Store: memblob.New(), Name: "x",
			Size: testSize, Source: source, TempDir: t.TempDir()})
		if !errs.Is(err, c.kind) {
			t.Errorf("%s: kind %q: %v", what, errs.KindOf(err), err)
		}
	}
}

// An archive that was cut is invalid wherever that was: trying again doesn't help.
func TestCutArchivesAreInvalid(t *testing.T) {
	plain := packed(t, makeTree(t))
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	if _, err := w.Write(plain); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	for what, archive := range map[string][]byte{"plain": plain, "gzip": zipped.Bytes(),
		"Docker": packed(t, savedDir(t, nil)), "OCI": packed(t, layoutDir(t))} {
		for i := range 40 {
			cut := max(1, len(archive)*i/40)
			_, err := image.Build(t.Context(), image.BuildConfig{Store: memblob.New(), Name: "x",
				Size:   testSize,
				Source: image.Tar(bytes.NewReader(archive[:cut])), TempDir: t.TempDir()})
			if !errs.Is(err, errs.Invalid) || errs.RemedyOf(err) == "" {
				t.Errorf("%s cut at %d of %d: kind %q: %v", what, cut, len(archive),
					errs.KindOf(err), err)
			}
		}
	}
}

// Owners that a machine doesn't have become nobody, and the result says so.
func TestOwnersOutsideTheRange(t *testing.T) {
	tree := makeTree(t)
	for name, id := range map[string]int{"bin/tool": 70000, "srv/zeros": 65535} {
		if err := os.Lchown(filepath.Join(tree, name), id, id-65535); err != nil {
			t.Fatal(err)
		}
	}
	store := memblob.New()
	res := build(t, store, image.Tar(bytes.NewReader(packed(t, tree))))
	if len(res.Notes) != 2 || !strings.Contains(res.Notes[0], "such as /bin/same of 70000:4465") ||
		!strings.Contains(res.Notes[0], ": 2,") ||
		!strings.Contains(res.Notes[1], "no /bin/sh in it") {
		t.Errorf("notes %q", res.Notes)
	}
	dir := mountFork(t, store, res)
	for name, want := range map[string]string{"bin/tool": "65534:4465", "srv/zeros": "65535:0",
		"srv/data": "1000:1001"} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%d:%d", st.Uid, st.Gid); got != want {
			t.Errorf("%s is of %s, want %s", name, got, want)
		}
	}
}
