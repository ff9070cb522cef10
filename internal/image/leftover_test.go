package image_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/image"
)

// ofBuilder is in every file of builderTree that no image may have, also not in a block that is
// free.
const ofBuilder = "<of the builder>"

// builderFiles are files by whether an image has them: "gone", "empty", or "kept" as they are.
func builderFiles() map[string]string {
	return map[string]string{
		"etc/resolv.conf": "gone", "etc/hosts": "gone", "etc/hostname": "gone",
		"etc/machine-id":               "empty",
		"etc/ssh/ssh_host_ed25519_key": "gone", "etc/ssh/ssh_host_ed25519_key.pub": "gone",
		"etc/ssh/ssh_config":          "kept",
		"var/lib/systemd/random-seed": "gone", "var/lib/urandom/random-seed": "gone",
		"var/lib/dbus/machine-id":           "gone",
		"var/lib/dhcp/dhclient.eth0.leases": "gone", "root/.bash_history": "gone",
		"root/.bashrc":     "kept",
		"etc/apt/apt.conf": "gone", "etc/apt/apt.conf.d/01proxy": "gone",
		"etc/apt/apt.conf.d/70debconf": "kept",
		"etc/apt/apt.conf.d/80comment": "kept", "etc/apt/auth.conf": "gone",
		"etc/apt/auth.conf.d/mirror.conf": "gone",
		"etc/apt/sources.list":            "kept", "var/cache/apt/pkgcache.bin": "gone",
		"var/cache/apt/archives/a_1_all.deb":         "gone",
		"var/cache/apt/archives/partial/b_1_all.deb": "gone",
		"var/lib/apt/lists/mirror_dists_x_Release":   "gone",
		"var/lib/apt/lists/auxfiles/x":               "gone", "var/lib/dpkg/status-old": "gone",
		"var/lib/dpkg/status":              "kept",
		"var/cache/debconf/config.dat-old": "gone", "var/cache/ldconfig/aux-cache": "gone",
		"var/log/bootstrap.log": "gone", "var/log/dpkg.log": "gone",
		"var/log/alternatives.log": "gone", "var/log/apt/term.log": "gone",
		"var/log/wtmp": "empty", `var/log/an "odd" name`: "empty",
		"var/log/nginx/access.log": "empty", "srv/resolv.conf": "kept",
	}
}

// builderTree makes a tree with all that a host may leave in one.
func builderTree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	bodies := map[string]string{
		"etc/apt/apt.conf": "Acquire {\n  http {\n    Proxy \"http://" + ofBuilder +
			"\";\n  };\n};\n",
		"etc/apt/apt.conf.d/01proxy": "# " + ofBuilder +
			"\nAcquire::http::Proxy-Auto-Detect \"/usr/bin/find\";\n",
		"etc/apt/apt.conf.d/80comment": "// Acquire::http::Proxy \"http://example.com\";\n",
	}
	for name, fate := range builderFiles() {
		body := bodies[name]
		if body == "" {
			body = "text\n"
			if fate != "kept" {
				body = ofBuilder + "\n"
			}
		}
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755),
			os.WriteFile(path, []byte(body), 0o640)); err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(
		os.Chown(filepath.Join(root, "var/log/nginx/access.log"), 33, 4),
		os.Symlink("/dev/stderr", filepath.Join(root, "var/log/nginx/error.log")),
		os.Symlink("/etc", filepath.Join(root, "var/lib/dhcp/out.leases")),
	)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// ociLayout makes an OCI layout of one layer, with the files of a tree.
func ociLayout(t *testing.T, tree string) string {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image,
		static.NewLayer(packed(t, tree), types.OCIUncompressedLayer))
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

// Nothing of the builder's is in an image, whatever the image was made from.
func TestImageHasNothingOfItsBuilder(t *testing.T) {
	tree := builderTree(t)
	oci := ociLayout(t, tree)
	for what, source := range map[string]image.Source{
		"directory": image.Dir(tree), "tar": image.Tar(bytes.NewReader(packed(t, tree))),
		"OCI layout": image.OCI(oci), "tar of an OCI layout": image.Tar(
			bytes.NewReader(packed(t, oci))),
	} {
		t.Run(what, func(t *testing.T) {
			store := memblob.New()
			res := build(t, store, source)
			checkNowhereOnDisk(t, store, res, ofBuilder)
			checkFates(t, mountFork(t, store, res))
		})
	}
	if got, err := os.ReadFile(filepath.Join(tree, "etc/resolv.conf")); err != nil ||
		string(got) != ofBuilder+"\n" {
		t.Errorf("the source was changed: %q %v", got, err)
	}
}

func checkFates(t *testing.T, dir string) {
	t.Helper()
	for name, fate := range builderFiles() {
		got, err := os.ReadFile(filepath.Join(dir, name))
		switch fate {
		case "gone":
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is in the image: %q %v", name, got, err)
			}
		case "empty":
			if err != nil || len(got) > 0 {
				t.Errorf("%s should be there and empty: %q %v", name, got, err)
			}
		case "kept":
			if err != nil || len(got) == 0 {
				t.Errorf("%s should be as it was: %q %v", name, got, err)
			}
		}
	}
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(dir, "var/log/nginx/access.log"), &st); err != nil ||
		st.Uid != 33 || st.Gid != 4 || st.Mode != unix.S_IFREG|0o640 {
		t.Errorf("a log that was emptied: owner %d:%d, mode %o, %v", st.Uid, st.Gid, st.Mode, err)
	}
	for _, name := range []string{"var/log/nginx/error.log", "var/lib/dhcp/out.leases"} {
		if _, err := os.Readlink(filepath.Join(dir, name)); err != nil {
			t.Errorf("a link of the tree's own: %v", err)
		}
	}
}

// checkNowhereOnDisk reads a template whole, used blocks and free ones.
func checkNowhereOnDisk(t *testing.T, store *memblob.Store, res image.Result, text string) {
	t.Helper()
	d, err := disk.Attach(t.Context(), store, res.DiskPath,
		disk.AttachOptions{Generation: 2, Holder: "test"})
	if err != nil {
		t.Fatal(err)
	}
	content := make([]byte, testSize)
	if err := errors.Join(d.ReadAt(t.Context(), content, 0), d.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	if at := bytes.Index(content, []byte(text)); at >= 0 {
		t.Errorf("%q is still on the disk, at byte %d", content[at:at+40], at)
	}
}
