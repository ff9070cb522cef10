package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/frontend"
	"github.com/sluice-platform/sluice/internal/image"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const testSize = 64 << 20

// makeTree makes a small tree with all kinds of things in it.
func makeTree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, body := range map[string]string{
		"etc/machine-id":           "0123456789abcdef0123456789abcdef\n",
		"etc/ssh/ssh_host_rsa_key": "secret", "etc/ssh/sshd_config": "Port 22\n",
		"var/lib/systemd/random-seed": "seed", "srv/zeros": strings.Repeat("\x00", 1<<20),
		"srv/data": strings.Repeat("some data ", 100_000),
		"bin/tool": "#!/bin/sh\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		os.Symlink("tool", filepath.Join(root, "bin/alias")),
		os.Link(filepath.Join(root, "bin/tool"), filepath.Join(root, "bin/same")),
		os.Chmod(filepath.Join(root, "bin/tool"), 0o4755|os.ModeSetuid),
		os.Lchown(filepath.Join(root, "srv/data"), 1000, 1001),
		unix.Setxattr(filepath.Join(root, "srv/data"), "user.color", []byte("blue"), 0),
		unix.Mknod(filepath.Join(root, "srv/null"), unix.S_IFCHR, int(unix.Mkdev(1, 3))),
		os.Chmod(filepath.Join(root, "srv/null"), 0o666),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func packed(t *testing.T, root string) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := image.Pack(t.Context(), root, &buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func build(t *testing.T, store blob.Store, source image.Source) image.Result {
	t.Helper()
	var last, total int64
	res, err := image.Build(t.Context(), image.BuildConfig{
		Store: store, Name: "test", Size: testSize, Source: source, TempDir: t.TempDir(),
		Progress: func(d, n int64) { last, total = d, n },
	})
	if err != nil {
		t.Fatal(err)
	}
	if total == 0 || last != total {
		t.Errorf("progress ended at %d of %d", last, total)
	}
	return res
}

// mountFork forks a disk from an image and mounts it read-only; the directory is there until the
// test ends.
func mountFork(t *testing.T, store blob.Store, res image.Result) string {
	t.Helper()
	const child = "disks/child"
	if _, err := disk.Fork(t.Context(), store, res.DiskPath, res.Checkpoint, child,
		disk.ForkOptions{}); err != nil {
		t.Fatal(err)
	}
	d, err := disk.Attach(t.Context(), store, child,
		disk.AttachOptions{Generation: 1, Holder: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	t.Cleanup(func() {
		if err := d.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	f, err := frontend.Attach(t.Context(), d,
		frontend.Config{Name: "image-test", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	if err := frontend.Fsck(t.Context(), f.BlockDevice()); err != nil {
		t.Error(err)
	}
	dir := t.TempDir()
	if err := frontend.MountExt4(t.Context(), f.BlockDevice(), dir, unix.MS_RDONLY); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := frontend.Unmount(ctx, dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// checkTree checks the tree of makeTree as it is in an image.
func checkTree(t *testing.T, dir string) {
	t.Helper()
	for name, want := range map[string]string{
		"etc/machine-id": "", "etc/ssh/sshd_config": "Port 22\n",
		"srv/zeros": strings.Repeat("\x00", 1<<20),
		"srv/data":  strings.Repeat("some data ", 100_000), "bin/same": "#!/bin/sh\n",
		"bin/alias": "#!/bin/sh\n",
	} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, want %d: %v", name, len(got), len(want), err)
		}
	}
	for _, gone := range []string{"etc/ssh/ssh_host_rsa_key", "var/lib/systemd/random-seed"} {
		if _, err := os.Lstat(filepath.Join(dir, gone)); !os.IsNotExist(err) {
			t.Errorf("%s is in the image: %v", gone, err)
		}
	}
	stat := func(name string) (st unix.Stat_t) {
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
			t.Error(err)
		}
		return st
	}
	if st := stat("bin/tool"); st.Mode != unix.S_IFREG|0o4755 || st.Ino != stat("bin/same").Ino {
		t.Errorf("bin/tool: mode %o, or not one file with bin/same", st.Mode)
	}
	if st := stat("srv/data"); st.Uid != 1000 || st.Gid != 1001 {
		t.Errorf("srv/data: owner %d:%d", st.Uid, st.Gid)
	}
	if st := stat("srv/null"); st.Mode != unix.S_IFCHR|0o666 || st.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("srv/null: mode %o, device %x", st.Mode, st.Rdev)
	}
	if st := stat("etc/machine-id"); st.Mode != unix.S_IFREG|0o444 || st.Uid != 0 {
		t.Errorf("etc/machine-id: mode %o", st.Mode)
	}
	if n, err := unix.Getxattr(filepath.Join(dir, "srv/data"), "user.color",
		make([]byte, 9)); n != 4 || err != nil {
		t.Errorf("srv/data's attribute: %d %v", n, err)
	}
}

func TestBuildFromDirectory(t *testing.T) {
	store, tree := memblob.New(), makeTree(t)
	res := build(t, store, image.Dir(tree))
	if res.SizeBytes != testSize || res.DataBytes < 1_000_000 || res.DataBytes > 4<<20 {
		t.Errorf("%+v", res)
	}
	checkTree(t, mountFork(t, store, res))
	if id, err := os.ReadFile(filepath.Join(tree, "etc/machine-id")); err != nil || len(id) == 0 {
		t.Errorf("the source was changed: %q %v", id, err)
	}
}

func TestBuildFromTar(t *testing.T) {
	store := memblob.New()
	checkTree(t, mountFork(t, store,
		build(t, store, image.Tar(bytes.NewReader(packed(t, makeTree(t)))))))
}

func TestBuildFromOCIArchive(t *testing.T) {
	upper := tarOf(t, map[string]string{"srv/.wh.old": "", "etc/new": "2"})
	lower := tarOf(t, map[string]string{"srv/old": "1", "srv/kept": "1", "etc/": ""})
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer(lower, types.OCIUncompressedLayer),
		static.NewLayer(upper, types.OCIUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	other := layout.WithPlatform(v1.Platform{OS: "linux", Architecture: "s390x"})
	if err := path.AppendImage(empty.Image, other); err != nil {
		t.Fatal(err)
	}
	if err := path.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	store := memblob.New()
	mounted := mountFork(t, store, build(t, store, image.Tar(bytes.NewReader(packed(t, dir)))))
	for name, want := range map[string]string{"srv/kept": "1", "etc/new": "2",
		"etc/machine-id": ""} {
		if got, err := os.ReadFile(filepath.Join(mounted, name)); err != nil ||
			string(got) != want {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	if _, err := os.Stat(filepath.Join(mounted, "srv/old")); !os.IsNotExist(err) {
		t.Errorf("a file that the upper layer removes is there: %v", err)
	}
	checkDamagedLayer(t, dir, upper)
}

// checkDamagedLayer changes a byte of a file in a layer, which only the layer's digest tells.
func checkDamagedLayer(t *testing.T, dir string, layer []byte) {
	t.Helper()
	hash, _, err := v1.SHA256(bytes.NewReader(layer))
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(layer)
	bad[bytes.Index(bad, []byte("etc/new"))+512]++
	if err := os.WriteFile(filepath.Join(dir, "blobs", "sha256", hash.Hex), bad,
		0o600); err != nil {
		t.Fatal(err)
	}
	_, err = image.Build(t.Context(), image.BuildConfig{Store: memblob.New(), Name: "bad",
		Size: testSize, Source: image.OCI(dir), TempDir: t.TempDir()})
	if !errs.Is(err, errs.Corrupt) {
		t.Errorf("a layer that doesn't have its digest: kind %q: %v", errs.KindOf(err), err)
	}
}

func tarOf(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for name, body := range files {
		h := tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(body))}
		if strings.HasSuffix(name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// accessLater sets the access times of a tree into the near future, so that reading it changes none
// (relatime writes one only if it isn't after the last change).
func accessLater(t *testing.T, tree string) {
	t.Helper()
	later := unix.NsecToTimespec(time.Now().Add(time.Hour).UnixNano())
	times := []unix.Timespec{later, {Nsec: unix.UTIME_OMIT}}
	err := filepath.WalkDir(tree, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, times, unix.AT_SYMLINK_NOFOLLOW)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestBuildIsRepeatable(t *testing.T) {
	tree := makeTree(t)
	accessLater(t, tree)
	var contents [2][]byte
	for i := range contents {
		if i > 0 {
			time.Sleep(1100 * time.Millisecond) // file systems count in seconds
		}
		store := memblob.New()
		res := build(t, store, image.Dir(tree))
		d, err := disk.Attach(t.Context(), store, res.DiskPath,
			disk.AttachOptions{Generation: 2, Holder: "test"})
		if err != nil {
			t.Fatal(err)
		}
		contents[i] = make([]byte, testSize)
		if err := d.ReadAt(t.Context(), contents[i], 0); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for off := 0; off < testSize; off += disk.BlockSize {
		if !bytes.Equal(contents[0][off:off+disk.BlockSize], contents[1][off:off+disk.BlockSize]) {
			t.Fatalf("two builds of one tree differ in block %d", off/disk.BlockSize)
		}
	}
}

// failing denies every write, for good, from the n-th on.
type failing struct {
	blob.Store
	left atomic.Int64
}

func (f *failing) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	if f.left.Add(-1) < 0 {
		return "", errs.New(errs.Denied, "no more writes")
	}
	return f.Store.PutIfAbsent(ctx, key, body)
}

func (f *failing) PutIfMatch(ctx context.Context, key string, body []byte,
	match blob.ETag) (blob.ETag, error) {
	if f.left.Add(-1) < 0 {
		return "", errs.New(errs.Denied, "no more writes")
	}
	return f.Store.PutIfMatch(ctx, key, body, match)
}

// A build that fails at any of its writes leaves nothing, and the same call succeeds afterwards.
func TestFailedBuildLeavesNothing(t *testing.T) {
	tree, temp := makeTree(t), t.TempDir()
	for n := int64(0); ; n++ {
		store := &failing{Store: memblob.New()}
		store.left.Store(n)
		cfg := image.BuildConfig{Store: store, Name: "test", Size: testSize,
			Source: image.Dir(tree), TempDir: temp, DiskPath: "disks/image"}
		_, err := image.Build(t.Context(), cfg)
		if err == nil {
			if n < 4 {
				t.Errorf("built with %d writes", n)
			}
			return
		}
		if !errs.Is(err, errs.Denied) {
			t.Fatalf("kind %q: %v", errs.KindOf(err), err)
		}
		if err := store.List(t.Context(), "", "",
			func(e blob.Entry) bool {
				t.Errorf("failed at write %d, left %s", n,
					e.Key)
				return true
			}); err != nil {
			t.Fatal(err)
		}
		if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
			t.Fatalf("temporary files left: %v %v", left, err)
		}
		store.left.Store(1000)
		if _, err := image.Build(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTreeThatDoesNotFit(t *testing.T) {
	tree := t.TempDir()
	if err := os.WriteFile(filepath.Join(tree, "big"), bytes.Repeat([]byte("x"), 15<<20),
		0o600); err != nil {
		t.Fatal(err)
	}
	store := memblob.New()
	for what, source := range map[string]image.Source{"directory": image.Dir(tree),
		"tar": image.Tar(bytes.NewReader(packed(t, tree)))} {
		_, err := image.Build(t.Context(), image.BuildConfig{Store: store, Name: "big",
			Size: 16 << 20, Source: source, TempDir: t.TempDir()})
		if !errs.Is(err, errs.Exhausted) || errs.RemedyOf(err) == "" {
			t.Errorf("%s: kind %q: %v", what, errs.KindOf(err), err)
		}
	}
	if err := store.List(t.Context(), "", "",
		func(e blob.Entry) bool { t.Errorf("left %s", e.Key); return true }); err != nil {
		t.Error(err)
	}
}

// A tree of many small files fits as long as its blocks do, and leaves room for more files.
func TestManySmallFiles(t *testing.T) {
	const size, files = 16 << 20, 5000
	tree := t.TempDir()
	for i := range files {
		if err := os.WriteFile(filepath.Join(tree, strconv.Itoa(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	store := memblob.New()
	res, err := image.Build(t.Context(), image.BuildConfig{Store: store, Name: "many", Size: size,
		Source: image.Dir(tree), TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(mountFork(t, store, res), &st); err != nil || st.Ffree < files {
		t.Errorf("%d of %d files are free, %v", st.Ffree, st.Files, err)
	}
}

func TestBuildRefusesBadInput(t *testing.T) {
	good := image.BuildConfig{Store: memblob.New(), Name: "x", Size: testSize,
		Source: image.Dir(t.TempDir())}
	for what, change := range map[string]func(*image.BuildConfig){
		"no name":       func(c *image.BuildConfig) { c.Name = "" },
		"slash in name": func(c *image.BuildConfig) { c.Name = "a/b" },
		"odd size":      func(c *image.BuildConfig) { c.Size++ },
		"tiny":          func(c *image.BuildConfig) { c.Size = 4096 },
		"huge":          func(c *image.BuildConfig) { c.Size = 32 << 40 },
		"no directory":  func(c *image.BuildConfig) { c.Source = image.Dir("/does/not/exist") },
		"no archive": func(c *image.BuildConfig) {
			c.Source = image.Tar(strings.NewReader("nonsense"))
		},
		"empty archive": func(c *image.BuildConfig) { c.Source = image.Tar(strings.NewReader("")) },
		"no layout":     func(c *image.BuildConfig) { c.Source = image.OCI(t.TempDir()) },
	} {
		c := good
		change(&c)
		if _, err := image.Build(t.Context(), c); !errs.Is(err, errs.Invalid) &&
			!errs.Is(err, errs.NotFound) {
			t.Errorf("%s: kind %q: %v", what, errs.KindOf(err), err)
		}
	}
}

func TestLargeTemplateIsCheap(t *testing.T) {
	store := memblob.New()
	start := time.Now()
	res, err := image.Build(t.Context(), image.BuildConfig{Store: store, Name: "large",
		Size: 100 << 30, Source: image.Dir(makeTree(t)), TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("100 GiB template: %s, %d bytes of data", time.Since(start).Round(time.Millisecond),
		res.DataBytes)
	if res.DataBytes > 64<<20 {
		t.Errorf("%d bytes written for a tree of 2 MiB", res.DataBytes)
	}
}
