package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// inodesBelow counts what there is in a directory.
func inodesBelow(t *testing.T, dir string) (n int) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(string, os.DirEntry, error) error {
		n++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// bomb writes a compressed archive by what with does.
func bomb(t *testing.T, with func(*tar.Writer)) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	w := tar.NewWriter(z)
	with(w)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// TestArchivesThatStandForMuchMoreAreRefused: each is small, and takes no more of the host than its
// image has room for.
func TestArchivesThatStandForMuchMoreAreRefused(t *testing.T) {
	header := func(w *tar.Writer, h *tar.Header) {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		kind errs.Kind
		with func(w *tar.Writer)
	}{
		"60,000 empty files": {errs.Exhausted, func(w *tar.Writer) {
			for i := range 60_000 {
				header(w, &tar.Header{Name: fmt.Sprint("f", i), Typeflag: tar.TypeReg, Mode: 0o644})
			}
		}},
		"60,000 entries of one name": {errs.Exhausted, func(w *tar.Writer) {
			for range 60_000 {
				header(w, &tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644})
			}
		}},
		"directories that only names tell of": {errs.Exhausted, func(w *tar.Writer) {
			for i := range 40 {
				header(w, &tar.Header{Name: fmt.Sprint(i, strings.Repeat("/a", 1000)),
					Typeflag: tar.TypeDir, Mode: 0o755, Format: tar.FormatPAX})
			}
		}},
		"a directory deeper than a path": {errs.Invalid, func(w *tar.Writer) {
			header(w, &tar.Header{Name: strings.Repeat("a/", 100_000), Typeflag: tar.TypeDir,
				Mode: 0o755, Format: tar.FormatPAX})
		}},
		"huge attributes": {errs.Invalid, func(w *tar.Writer) {
			header(w, &tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644,
				PAXRecords: map[string]string{
					xattrRecord + "user.x": strings.Repeat("x", 200_000)}})
		}},
		"attributes of many files": {errs.Exhausted, func(w *tar.Writer) {
			for i := range 3000 {
				header(w, &tar.Header{Name: fmt.Sprint("f", i), Typeflag: tar.TypeReg,
					PAXRecords: map[string]string{
						xattrRecord + "user.x": strings.Repeat("x", 2000)}})
			}
		}},
		"a terabyte of zeros": {errs.Exhausted, func(w *tar.Writer) {
			header(w, &tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644, Size: 5 << 20})
			if _, err := io.CopyN(w, zeroReader{}, 5<<20); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			err := unpackSized(t, root, 4<<20, bomb(t, tc.with))
			if !errs.Is(err, tc.kind) || errs.RemedyOf(err) == "" && tc.kind == errs.Exhausted {
				t.Errorf("%v", err)
			}
			if n := inodesBelow(t, root); n > 4<<20/entryBytes+2 {
				t.Errorf("%d inodes were made", n)
			}
		})
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 0
	}
	return len(p), nil
}

func unpackSized(t *testing.T, root string, size int64, layer []byte) error {
	t.Helper()
	tr, err := openTree(root, boundsOf(size, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer tr.close()
	return unpack(t.Context(), tr, bytes.NewReader(layer), false)
}

// TestZerosTakeNoRoom: a file that is mostly a hole stays one, and what isn't is bounded by what
// the host gives, whatever size the image has.
func TestZerosTakeNoRoom(t *testing.T) {
	content := append(make([]byte, 64<<20), []byte("end")...)
	root := t.TempDir()
	if err := unpackSized(t, root, 1<<30, bomb(t, func(w *tar.Writer) {
		if err := w.WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg,
			Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	})); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(root, "f"), &st); err != nil || st.Blocks*512 > 1<<20 ||
		st.Size != int64(len(content)) {
		t.Errorf("%d bytes take %d: %v", st.Size, st.Blocks*512, err)
	}
	got, err := os.ReadFile(filepath.Join(root, "f"))
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("the content was changed: %v", err)
	}
	err = unpackSized(t, t.TempDir(), 1<<30, bomb(t, func(w *tar.Writer) {
		if err := w.WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg,
			Size: 2 << 20}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte("x"), 2<<20)); err != nil {
			t.Fatal(err)
		}
	}))
	if !errs.Is(err, errs.Exhausted) || errs.RemedyOf(err) == "" {
		t.Errorf("more than the host gives: %v", err)
	}
}

// TestPackagedImagesOfSpecialFilesAreRefused: reading one may never end, or reads what isn't the
// image's.
func TestPackagedImagesOfSpecialFilesAreRefused(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("{\"schemaVersion\":2,\"TOP-SECRET\":1}"),
		0o600); err != nil {
		t.Fatal(err)
	}
	char := func(name string) entry {
		return entry{tar.Header{Name: name, Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 5,
			Mode: 0o666}, ""}
	}
	fifo := func(name string) entry {
		return entry{tar.Header{Name: name, Typeflag: tar.TypeFifo, Mode: 0o666}, ""}
	}
	marker, blob := file("oci-layout", `{"imageLayoutVersion":"1.0.0"}`), strings.Repeat("a", 64)
	index := file("index.json", `{"schemaVersion":2,"manifests":[{"mediaType":`+
		`"application/vnd.oci.image.index.v1+json","size":3,"digest":"sha256:`+blob+`"}]}`)
	inBlob := "blobs/sha256/" + blob
	for name, entries := range map[string][]entry{
		"index.json is /dev/zero, by a link": {marker, dir("blobs"),
			symlink("index.json", "/dev/zero")},
		"index.json is a device": {marker, dir("blobs"), char("index.json")},
		"index.json is a pipe":   {marker, dir("blobs"), fifo("index.json")},
		"index.json is a file of the host": {marker, dir("blobs"),
			symlink("index.json", secret)},
		"index.json is huge": {marker, dir("blobs"),
			file("index.json", strings.Repeat(" ", maxDocument+1))},
		"a blob is a pipe":   {marker, index, fifo(inBlob)},
		"a blob is a device": {marker, index, char(inBlob)},
		"a blob is a link":   {marker, index, symlink(inBlob, secret)},
		"blobs is a link":    {marker, index, symlink("blobs", filepath.Dir(secret))},
		"an index in itself": {marker, index, file(inBlob, index.body)},
		"a huge manifest":    {marker, index, file(inBlob, strings.Repeat(" ", maxDocument+1))},
		"manifest.json's config is a pipe": {fifo("c"),
			file("manifest.json", `[{"Config":"c","Layers":["l"]}]`)},
		"manifest.json's config is a device": {char("c"),
			file("manifest.json", `[{"Config":"c","Layers":["l"]}]`)},
		"a layer is a pipe": {fifo("l"), file("c", `{"os":"linux","architecture":"`+
			runtime.GOARCH+`","rootfs":{"type":"layers","diff_ids":["sha256:`+blob+`"]}}`),
			file("manifest.json", `[{"Config":"c","Layers":["l"]}]`)},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			over := make(chan error, 1)
			go func() {
				_, err := Build(t.Context(), BuildConfig{Store: memblob.New(), Name: "evil",
					Size: 64 << 20, Source: Tar(bytes.NewReader(archive(t, entries...))),
					TempDir: t.TempDir()})
				over <- err
			}()
			select {
			case err := <-over:
				if !errs.Is(err, errs.Invalid) || strings.Contains(err.Error(), "SECRET") {
					t.Errorf("%v", err)
				}
			case <-time.After(2 * time.Minute):
				t.Fatalf("it hangs since %v", began)
			}
		})
	}
}

// TestAFileOfTheToolsIsReadInPart: a configuration of a line without end is read up to a bound.
func TestAFileOfTheToolsIsReadInPart(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "conf")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<40); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if found, err := holdsLine(root, "conf", aptProxy); err != nil || found {
		t.Errorf("%v, %v", found, err)
	}
}
