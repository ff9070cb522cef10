package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// entry is a tar header, with its content in Xattrs' place: tests are easier to read that way.
type entry struct {
	tar.Header
	body string
}

func file(name, body string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, body}
}

func dir(name string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}, ""}
}

func symlink(name, target string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target,
		Mode: 0o777}, ""}
}

func hardlink(name, target string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target}, ""}
}

func archive(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		e.Size = int64(len(e.body))
		if e.ModTime.IsZero() {
			e.ModTime = time.Unix(1700000000, 0)
		}
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func unpackAll(t *testing.T, root string, layers ...[]byte) error {
	t.Helper()
	tr, err := openTree(root, boundsOf(1<<20, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer tr.close()
	for _, layer := range layers {
		if err := unpack(t.Context(), tr, bytes.NewReader(layer), len(layers) > 1); err != nil {
			return err
		}
	}
	return tr.finish()
}

// listing describes a tree, one line for each entry.
func listing(t *testing.T, root string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err != nil || path == root {
			return err
		}
		name, _ := filepath.Rel(root, path)
		out.WriteString(name)
		switch {
		case info.Mode()&os.ModeSymlink != 0:
			target, _ := os.Readlink(path)
			out.WriteString(" -> " + target)
		case info.Mode().IsRegular():
			body, _ := os.ReadFile(path)
			out.WriteString(" = " + string(body))
		}
		out.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestUnpackStaysInside(t *testing.T) {
	for what, c := range map[string]struct {
		entries []entry
		want    string // listing; "" for refused
	}{
		"parent in a name":   {[]entry{file("../evil", "x")}, ""},
		"parent amid a name": {[]entry{file("a/../../evil", "x")}, ""},
		"absolute name":      {[]entry{file("/etc/passwd", "x")}, "etc\netc/passwd = x\n"},
		"through absolute link": {[]entry{symlink("out", "/"), file("out/evil", "x")},
			"evil = x\nout -> /\n"},
		"through relative link": {[]entry{dir("a"), symlink("a/out", "../../../.."),
			file("a/out/evil", "x")}, "a\na/out -> ../../../..\nevil = x\n"},
		"over a link":        {[]entry{symlink("f", "/etc/passwd"), file("f", "x")}, "f = x\n"},
		"hard link outside":  {[]entry{hardlink("h", "../../../../../../etc/hostname")}, ""},
		"hard link absolute": {[]entry{hardlink("h", "/etc/hostname")}, ""},
		"hard link by a link": {[]entry{symlink("etc", "/etc"), hardlink("h", "etc/hostname")},
			""},
		"link to proc": {[]entry{symlink("p", "/proc/self/root"), file("p/evil", "x")},
			""},
		"links in a circle": {[]entry{symlink("a", "b"), symlink("b", "a"), file("a/x", "x")},
			""},
	} {
		t.Run(what, func(t *testing.T) {
			parent := t.TempDir()
			root := filepath.Join(parent, "tree")
			if err := os.Mkdir(root, 0o755); err != nil {
				t.Fatal(err)
			}
			err := unpackAll(t, root, archive(t, c.entries...))
			if c.want == "" {
				if !errs.Is(err, errs.Invalid) {
					t.Errorf("kind %q: %v", errs.KindOf(err), err)
				}
			} else if err != nil {
				t.Error(err)
			} else if got := listing(t, root); got != c.want {
				t.Errorf("got\n%swant\n%s", got, c.want)
			}
			if left, _ := os.ReadDir(parent); len(left) != 1 {
				t.Errorf("something was written beside the tree: %v", left)
			}
		})
	}
}

func TestUnpackKeepsAttributes(t *testing.T) {
	root := t.TempDir()
	when := time.Unix(1600000000, 0)
	entries := []entry{
		{tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o1777, Uid: 5, Gid: 6, ModTime: when},
			""},
		{tar.Header{Name: "d/f", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 1000, Gid: 1001,
			ModTime: when,
			PAXRecords: map[string]string{"SCHILY.xattr.user.color": "blue",
				"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}}, "body"},
		hardlink("d/h", "d/f"),
		{tar.Header{Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: "nowhere", Uid: 7, Gid: 8,
			ModTime: when}, ""},
		{tar.Header{Name: "d/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3,
			ModTime: when}, ""},
		{tar.Header{Name: "d/pipe", Typeflag: tar.TypeFifo, Mode: 0o600, ModTime: when}, ""},
	}
	if err := unpackAll(t, root, archive(t, entries...)); err != nil {
		t.Fatal(err)
	}
	stat := func(name string) (st unix.Stat_t) {
		if err := unix.Lstat(filepath.Join(root, name), &st); err != nil {
			t.Fatal(err)
		}
		return st
	}
	for name, want := range map[string]struct{ mode, uid, gid uint32 }{
		"d":      {unix.S_IFDIR | 0o1777, 5, 6},
		"d/f":    {unix.S_IFREG | 0o4755, 1000, 1001},
		"d/l":    {unix.S_IFLNK | 0o777, 7, 8},
		"d/null": {unix.S_IFCHR | 0o666, 0, 0},
		"d/pipe": {unix.S_IFIFO | 0o600, 0, 0},
	} {
		st := stat(name)
		if st.Mode != want.mode || st.Uid != want.uid || st.Gid != want.gid ||
			st.Mtim.Sec != when.Unix() {
			t.Errorf("%s: mode %o, owner %d:%d, time %d", name, st.Mode, st.Uid,
				st.Gid, st.Mtim.Sec)
		}
	}
	if stat("d/f").Ino != stat("d/h").Ino {
		t.Error("the hard link is a file of its own")
	}
	if st := stat("d/null"); unix.Major(st.Rdev) != 1 || unix.Minor(st.Rdev) != 3 {
		t.Error("the device has other numbers")
	}
	for attr, want := range map[string]int{"user.color": 4, "security.capability": 20} {
		if n, err := unix.Lgetxattr(filepath.Join(root, "d/f"), attr,
			make([]byte, 64)); err != nil || n != want {
			t.Errorf("attribute %s: %d bytes, %v", attr, n, err)
		}
	}
	// What Pack makes of the tree unpacks to the same again.
	var packed bytes.Buffer
	if err := Pack(t.Context(), root, &packed); err != nil {
		t.Fatal(err)
	}
	again := t.TempDir()
	if err := unpackAll(t, again, packed.Bytes()); err != nil {
		t.Fatal(err)
	}
	var repacked bytes.Buffer
	if err := Pack(t.Context(), again, &repacked); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(packed.Bytes(), repacked.Bytes()) {
		t.Error("a tree that was packed, unpacked and packed again is different")
	}
}

func TestLayers(t *testing.T) {
	root := t.TempDir()
	err := unpackAll(t, root,
		archive(t, dir("bin"), file("bin/a", "1"), file("bin/b", "1"), dir("etc"),
			file("etc/x", "1"), file("etc/y", "1"), dir("sub"), file("sub/deep", "1")),
		archive(t, file("bin/.wh.a", ""), file("bin/b", "2"), file("sub/.wh.deep", ""),
			file(".wh.nothing", ""), file("no/.wh.such", "")),
		archive(t, file("etc/z", "3"), file("etc/.wh..wh..opq", ""), file("bin/.wh.c", ""),
			file("bin/c", "3"), file("sub", "now a file")),
		archive(t, dir("bin"), file("bin/c", "4"), file("bin/.wh.c", "")),
	)
	if err != nil {
		t.Fatal(err)
	}
	const want = "bin\nbin/b = 2\nbin/c = 4\netc\netc/z = 3\nsub = now a file\n"
	if got := listing(t, root); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	for _, bad := range []string{".wh..", ".wh...", ".wh."} {
		if err := unpackAll(t, t.TempDir(), archive(t, file("a", "")),
			archive(t, file(bad, ""))); !errs.Is(err, errs.Invalid) {
			t.Errorf("whiteout %q: %v", bad, err)
		}
	}
}

// TestWhiteoutsOfHiddenFolders are of that folder, and not of one without the dot.
func TestWhiteoutsOfHiddenFolders(t *testing.T) {
	root := t.TempDir()
	if err := unpackAll(t, root, archive(t, dir(".a"), file(".a/x", "1"), dir("a"),
		file("a/x", "1"), dir(".b"), file(".b/x", "1"), dir("b"), file("b/x", "1")),
		archive(t, file(".a/.wh.x", ""), file(".b/.wh..wh..opq", ""))); err != nil {
		t.Fatal(err)
	}
	if got := listing(t, root); got != ".a\n.b\na\na/x = 1\nb\nb/x = 1\n" {
		t.Errorf("got\n%s", got)
	}
}

func TestCompressedArchives(t *testing.T) {
	plain := archive(t, file("f", "body"))
	var gz, zst bytes.Buffer
	w := gzip.NewWriter(&gz)
	_, _ = w.Write(plain)
	w.Close()
	z, err := zstd.NewWriter(&zst)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = z.Write(plain)
	z.Close()
	for _, a := range [][]byte{plain, gz.Bytes(), zst.Bytes()} {
		root := t.TempDir()
		if err := unpackAll(t, root, a); err != nil {
			t.Fatal(err)
		}
		if got := listing(t, root); got != "f = body\n" {
			t.Errorf("%q", got)
		}
		if err := unpackAll(t, t.TempDir(), a[:len(a)*2/5]); err == nil {
			t.Error("half an archive was taken for a whole one")
		}
	}
}

func TestUnpackIsBounded(t *testing.T) {
	err := unpackAll(t, t.TempDir(), archive(t, file("big", strings.Repeat("x", 1<<20+1))))
	if !errs.Is(err, errs.Exhausted) || errs.RemedyOf(err) == "" {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tr, err := openTree(t.TempDir(), boundsOf(1<<20, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer tr.close()
	if err := unpack(ctx, tr, bytes.NewReader(archive(t, file("f", ""))), false); !errs.Is(err,
		errs.Unavailable) {
		t.Fatal(err)
	}
}
