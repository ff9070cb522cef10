package apart_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/image"
	"github.com/sluice-platform/sluice/internal/image/apart"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const unpack = "unpack-image"

// TestMain is the process of its own, too.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == unpack {
		if v, ok := os.LookupEnv("SLUICE_TEST_SECRET"); ok {
			panic("it has the server's environment: " + v)
		}
		if err := apart.Serve(context.Background(), os.Args[2], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func archive(t *testing.T) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range []*tar.Header{
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755}, // else its time is now
		{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "bin/sh", Typeflag: tar.TypeReg, Mode: 0o755, Size: 5, Uid: 7},
	} {
		h.ModTime = time.Unix(1700000000, 0)
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, "shell"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func made(t *testing.T, limits apart.Limits, size int64, in io.Reader) (image.Made, error) {
	t.Helper()
	return apart.Maker([]string{os.Args[0], unpack}, limits)(t.Context(),
		image.MakeConfig{Name: "x", Size: size, Temp: t.TempDir()}, in)
}

// content is what an image has, by e2fsprogs: names, modes, owners, times and bytes.
func content(t *testing.T, raw string) string {
	t.Helper()
	var all strings.Builder
	for _, ask := range []string{"ls -l /", "ls -l /bin", "cat /bin/sh"} {
		out, err := exec.CommandContext(t.Context(), "debugfs", "-R", ask, raw).Output()
		if err != nil {
			t.Fatal(err)
		}
		all.Write(out)
	}
	if !strings.HasSuffix(all.String(), "shell") {
		t.Fatalf("this proves nothing: %q", all.String())
	}
	return all.String()
}

// TestAnImageMadeApartIsTheSame, and what people should know of it comes over.
func TestAnImageMadeApartIsTheSame(t *testing.T) {
	t.Setenv("SLUICE_TEST_SECRET", "key")
	const size = 16 << 20
	got, err := made(t, apart.Limits{}, size, bytes.NewReader(archive(t)))
	if err != nil {
		t.Fatal(err)
	}
	want, err := image.Make(t.Context(), image.MakeConfig{Name: "x", Size: size,
		Temp: t.TempDir()}, image.Tar(bytes.NewReader(archive(t))))
	if err != nil {
		t.Fatal(err)
	}
	// Not byte by byte: the second in which an inode was made is in it.
	if content(t, got.Raw) != content(t, want.Raw) {
		t.Errorf("another image:\n%s", content(t, got.Raw))
	}
	if fmt.Sprint(got.Notes) != fmt.Sprint(want.Notes) || got.Config != nil {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// endless is an archive of one file that has no end.
func endless(t *testing.T) io.Reader {
	t.Helper()
	var buf bytes.Buffer
	if err := tar.NewWriter(&buf).WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg,
		Size: 1 << 40, Format: tar.FormatGNU}); err != nil {
		t.Fatal(err)
	}
	return io.MultiReader(&buf, zeros{})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// blocked never brings anything, until the test is over.
type blocked struct{ over <-chan struct{} }

func (b blocked) Read([]byte) (int, error) {
	<-b.over
	return 0, io.EOF
}

// TestABuildThatTakesTooMuchEndsAlone: the server says so, and goes on.
func TestABuildThatTakesTooMuchEndsAlone(t *testing.T) {
	over := make(chan struct{})
	defer close(over)
	for name, tc := range map[string]struct {
		kind   errs.Kind
		limits apart.Limits
		in     io.Reader
	}{
		"memory": {errs.Exhausted, apart.Limits{Memory: 1}, bytes.NewReader(archive(t))},
		"processor time": {errs.Exhausted, apart.Limits{CPU: time.Second},
			endless(t)},
		"time":  {errs.Unavailable, apart.Limits{Time: time.Second}, blocked{over}},
		"noise": {errs.Invalid, apart.Limits{}, strings.NewReader(strings.Repeat("noise", 1000))},
		"room on the host": {errs.Exhausted, apart.Limits{Stored: 1},
			bytes.NewReader(archive(t))},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := made(t, tc.limits, 1<<40, tc.in)
			if !errs.Is(err, tc.kind) || tc.kind == errs.Exhausted && errs.RemedyOf(err) == "" {
				t.Errorf("%v (%s), remedy %q", err, errs.KindOf(err), errs.RemedyOf(err))
			}
		})
	}
	if _, err := apart.Maker([]string{filepath.Join(t.TempDir(), "none")}, apart.Limits{})(
		t.Context(), image.MakeConfig{Name: "x", Size: 16 << 20, Temp: t.TempDir()},
		bytes.NewReader(nil)); !errs.Is(err, errs.Unavailable) {
		t.Errorf("a program that isn't there: %v", err)
	}
}
