package fleettest

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// ImageTar is the image that tests run: busybox with its applets, and the programs of test/guest.
// Nobody may change it.
func ImageTar(t testing.TB) []byte {
	t.Helper()
	return testImage.get(func() []byte { return buildImage(t) })
}

func buildImage(t testing.TB) []byte {
	t.Helper()
	guests := t.TempDir()
	build := exec.CommandContext(context.Background(), "go", "build", "-trimpath", "-o", guests,
		"./test/guest/...")
	build.Dir = repositoryRoot(t)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build what runs in machines: %v\n%s", err, out)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatalf("busybox is missing (scripts/setup.sh installs it): %v", err)
	}
	applets, err := exec.CommandContext(context.Background(), busybox, "--list").Output()
	if err != nil {
		t.Fatalf("list busybox applets: %v", err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, dir := range []string{"bin", "etc", "dev", "proc", "sys", "tmp", "run", "root", "srv",
		"data", "var", "var/log", "usr", "usr/bin"} {
		add(t, w, tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	add(t, w, tar.Header{Name: "bin/busybox", Mode: 0o755}, read(t, busybox))
	for _, guest := range []string{"attack", "ledger", "probe", "torture"} {
		add(t, w, tar.Header{Name: "bin/" + guest, Mode: 0o755},
			read(t, filepath.Join(guests, guest)))
	}
	for _, applet := range strings.Fields(string(applets)) {
		if applet != "busybox" {
			add(t, w, tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink,
				Linkname: "busybox", Mode: 0o777}, nil)
		}
	}
	add(t, w, tar.Header{Name: "etc/passwd", Mode: 0o644},
		[]byte("root:x:0:0:root:/root:/bin/sh\n"))
	add(t, w, tar.Header{Name: "etc/group", Mode: 0o644}, []byte("root:x:0:\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func add(t testing.TB, w *tar.Writer, h tar.Header, body []byte) {
	t.Helper()
	h.Size = int64(len(body))
	if h.Typeflag == 0 {
		h.Typeflag = tar.TypeReg
	}
	if err := w.WriteHeader(&h); err != nil {
		t.Fatalf("image: %s: %v", h.Name, err)
	}
	if _, err := w.Write(body); err != nil {
		t.Fatalf("image: %s: %v", h.Name, err)
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// repositoryRoot is the directory of go.mod.
func repositoryRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		} else if !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if dir == "/" {
			t.Fatal(fmt.Errorf("no go.mod above the test: %w", fs.ErrNotExist))
		}
		dir = filepath.Dir(dir)
	}
}
