package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/test/fleettest"
)

// indiaTime is a time zone file (RFC 8536) of a zone that is five and a half hours ahead, always.
func indiaTime() string {
	block := "TZif2" + strings.Repeat("\x00", 15) + strings.Repeat("\x00\x00\x00\x00",
		4) + "\x00\x00\x00\x01\x00\x00\x00\x04" +
		"\x00\x00\x4d\x58\x00\x00" + "IST\x00"
	return block + block + "\nIST-5:30\n"
}

// attributedTar is the test image with files that say by their attributes what got lost on the way.
func attributedTar(t *testing.T) []byte {
	t.Helper()
	var buf bytes.Buffer
	out := tar.NewWriter(&buf)
	var busybox []byte
	for in := tar.NewReader(bytes.NewReader(fleettest.ImageTar(t))); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == "bin/busybox" {
			busybox = body
		}
		put(t, out, *h, body)
	}
	// cap_chown=ep, of version 2
	const chown = "\x01\x00\x00\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	put(t, out, tar.Header{Name: "bin/busybox-chown", Mode: 0o755,
		PAXRecords: map[string]string{"SCHILY.xattr.security.capability": chown}}, busybox)
	put(t, out, tar.Header{Name: "etc/passwd", Mode: 0o644},
		[]byte("root:x:0:0:root:/root:/bin/sh\nwww:x:1234:1234:www:/:/bin/sh\n"))
	put(t, out, tar.Header{Name: "srv/stranger", Mode: 0o644, Uid: 70000, Gid: 70000}, []byte("x"))
	put(t, out, tar.Header{Name: "usr/share/zoneinfo/Asia/Kolkata", Mode: 0o644},
		[]byte(indiaTime()))
	put(t, out, tar.Header{Name: "etc/localtime", Typeflag: tar.TypeSymlink,
		Linkname: "/usr/share/zoneinfo/Asia/Kolkata", Mode: 0o777}, nil)
	put(t, out, tar.Header{Name: "etc/resolv.conf", Mode: 0o644}, []byte("nameserver 192.0.2.53\n"))
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func put(t *testing.T, w *tar.Writer, h tar.Header, body []byte) {
	t.Helper()
	h.Size = int64(len(body))
	if err := w.WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
}

// dockerDir is what docker save writes, unpacked, of an image with one layer.
func dockerDir(t *testing.T, layer []byte) string {
	t.Helper()
	dir := t.TempDir()
	config, err := json.Marshal(map[string]any{"os": "linux", "architecture": runtime.GOARCH,
		"config": map[string]any{"Env": []string{"PATH=/bin", "MODE=live"},
			"Cmd": []string{"httpd", "-f"}},
		"rootfs": map[string]any{"type": "layers",
			"diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{"layer.tar": string(layer),
		"config.json":   string(config),
		"manifest.json": `[{"Config":"config.json","Layers":["layer.tar"]}]`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// imagesAreRead builds an image of what Docker saves, and reads it back in a machine.
func imagesAreRead(t *testing.T, f *fleettest.Fleet) {
	got := f.Sluice("image", "create", "docker", "--from", dockerDir(t, attributedTar(t)),
		"--size", "128MiB")
	for _, want := range []string{
		"note: the image's config is kept and not followed: Env MODE; Cmd httpd -f",
		"1, such as /srv/stranger of 70000:70000"} {
		if got.Code != 0 || !strings.Contains(got.Stderr, want) {
			t.Fatalf("%+v lacks %q", got, want)
		}
	}
	made := f.Sluice("machine", "create", "read", "--app", "test", "--network", "green", "--image",
		"docker", "--cpus", "0.1", "--memory", "64")
	if made.Code != 0 {
		t.Fatalf("%+v", made)
	}
	for script, want := range map[string]string{
		`touch /data/f; su www -s /bin/sh -c 'busybox chown 5 /data/f 2>/dev/null; busybox-chown chown 6 /data/f'; stat -c %u /data/f`: "6\n",

		"stat -c %u:%g /srv/stranger; rm /srv/stranger; ls /srv": "65534:65534\n",
		"date -d @0 +%H:%M%z":              "05:30+0530\n",
		"TZ=UTC-1 date -d @0 +%H:%M":       "01:00\n",
		"grep -c 192.0.2 /etc/resolv.conf": "0\n",
	} {
		if got := f.Sluice("machine", "exec", "read", "--", "sh", "-c",
			script); got.Stdout != want {
			t.Errorf("%s: %+v", script, got)
		}
	}
	cut := filepath.Join(t.TempDir(), "cut.tar")
	if err := os.WriteFile(cut, attributedTar(t)[:1<<20], 0o600); err != nil {
		t.Fatal(err)
	}
	if got := f.Sluice("image", "create", "cut", "--from", cut, "--size",
		"128MiB"); got.Code != 2 || !strings.Contains(got.Stderr, "cut short") {
		t.Errorf("a cut archive: %+v", got)
	}
	destroy(t, f, "read")
}

// memoryRunsOut: who is killed for lack of memory is told so, and the machine's status and events
// say it.
func memoryRunsOut(t *testing.T, f *fleettest.Fleet) {
	got := f.Sluice("machine", "exec", "m", "--no-stdin", "--", "tail", "/dev/zero")
	if got.Code != 137 || !strings.Contains(got.Stderr,
		"killed: the machine is out of memory (it has 128 MiB)") {
		t.Errorf("exec: %+v", got)
	}
	f.Eventually(time.Minute, func() error {
		status := f.Sluice("machine", "status", "m").Stdout
		if !strings.Contains(status,
			"Out of memory: since it was started here the kernel has killed 1 of its processes") ||
			!strings.Contains(status, "out_of_memory") {
			return fmt.Errorf("status: %s", status)
		}
		return nil
	})
}

// crashLoops: a machine with a service that ends over and over is not healthy, whoever looks, and
// is not waited for.
func crashLoops(t *testing.T, f *fleettest.Fleet) {
	got := f.Sluice("machine", "create", "loop", "--app", "test", "--network", "green", "--image",
		fleettest.Image, "--cpus", "0.1", "--memory", "64",
		"--service", "name=w,cmd=true")
	if got.Code == 0 || !strings.Contains(got.Stderr, "service w is ") ||
		!strings.Contains(got.Stderr, "exit code 0") ||
		!strings.Contains(got.Stderr, " restarts)") {
		t.Errorf("create: %+v", got)
	}
	for range 20 {
		m, err := f.Machine(t.Context(), "loop")
		if err != nil {
			t.Fatal(err)
		}
		if m.Healthy {
			t.Fatalf("healthy with %+v", m.Services)
		}
	}
	destroy(t, f, "loop")
}
