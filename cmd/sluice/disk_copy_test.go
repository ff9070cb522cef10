package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/internal/disk/fsck"
)

func system(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// rawFile makes a sparse file of an odd size with content at both ends.
func rawFile(t *testing.T, size int64) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{3000, 5 << 20, size - 300_000} {
		part := make([]byte, min(300_000, size-off))
		for i := range part {
			part[i] = byte(i*7 + i>>9)
		}
		if _, err := f.WriteAt(part, off); err != nil {
			t.Fatal(err)
		}
	}
	return f.Name()
}

func TestImportAndExport(t *testing.T) {
	h := newDiskHost(t)
	raw := rawFile(t, 20<<20+512*3)
	qcow := filepath.Join(h.mkdir("images"), "a.qcow2")
	system(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow)
	for name, source := range map[string]string{"from-raw": raw, "from-qcow2": qcow} {
		url := h.url(name)
		h.must("import", source, url)
		if x := h.info(url); x.SizeBytes != 20<<20+4096 || x.MappedBytes > 2<<20 ||
			x.State != "closed" {
			t.Errorf("%s: %+v", name, x)
		}
		for _, out := range []string{name + ".img", name + ".qcow2"} {
			out = filepath.Join(h.dir, "images", out)
			h.must("export", url, out)
			format := strings.TrimPrefix(strings.Replace(filepath.Ext(out), "img", "raw", 1), ".")
			if said := system(t, "qemu-img", "compare", "-f", "raw", "-F", format, raw,
				out); !strings.Contains(said, "identical") {
				t.Error(said)
			}
			if n, err := storedBytes(out); n > 3<<20 || err != nil {
				t.Errorf("%s takes %d bytes: %v", out, n, err)
			}
			h.refused(exitConflict, "already", "export", url, out)
		}
		h.must("fsck", url, "--data")
	}
	h.must("import", raw, h.url("large"), "--size", "1GiB")
	if x := h.info(h.url("large")); x.SizeBytes != 1<<30 {
		t.Errorf("%+v", x)
	}

	system(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", raw, "-F", "raw", qcow+".thin")
	h.refused(exitUsage, "refers to", "import", qcow+".thin", h.url("thin"))
	h.refused(exitUsage, "at least", "import", raw, h.url("small"), "--size", "4KiB")
	h.refused(exitNotFound, "no image", "import", raw+".none", h.url("none"))
	h.refused(exitConflict, "there is a disk", "import", raw, h.url("large"))
	if err := os.WriteFile(qcow, append([]byte("QFI\xfb"), make([]byte, 4096)...),
		0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := h.run("disk", "import", qcow, h.url("broken")); code == 0 ||
		!strings.Contains(stderr, "qemu-img") {
		t.Errorf("a broken image: exit %d: %s", code, stderr)
	}
	for _, name := range []string{"thin", "small", "none", "broken"} {
		h.refused(exitNotFound, "no disk", "info", h.url(name))
	}
}

// TestServe serves a disk to clients that others wrote, ends by an interrupt, and begins again at
// the same socket.
func TestServe(t *testing.T) {
	h := newDiskHost(t)
	url, raw := h.url("data"), rawFile(t, 20<<20)
	socket := filepath.Join(h.dir, "nbd.sock")
	uri := "nbd+unix:///?socket=" + socket
	h.must("create", url, "--size", "20MiB")
	h.refused(exitUsage, "--socket", "serve", url)
	h.refused(exitUsage, "--read-only", "serve", url, "--socket", socket, "--checkpoint", "one")
	cmd, _ := h.foreground("serve", url, "--socket", socket)
	system(t, "nbdcopy", "--flush", raw, uri)
	h.must("checkpoint", url, "full")
	// what was flushed is there, and the socket that is left is no obstacle
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	cmd, stderr := h.foreground("serve", url, "--socket", socket, "--listen", ":0")
	system(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", raw, uri)
	x := h.info(url).Attachments
	if len(x) != 1 || len(x[0].NBD) != 2 || !strings.HasPrefix(x[0].NBD[1], "nbd://127.0.0.1:") {
		t.Fatalf("%+v", x)
	}
	system(t, "qemu-io", "-f", "raw", "-c", "write -z -u 0 20M", "-c", "flush", x[0].NBD[1])
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v %v", info, err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after an interrupt: %v: %s", err, stderr)
	}
	if x := h.info(url); x.MappedBytes != 0 || x.State != "closed" {
		t.Errorf("after zeroing it all: %+v", x)
	}
	h.must("serve", url, "--socket", socket, "--read-only", "--checkpoint", "full", "--background")
	system(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", raw, uri)
	h.must("detach", url)
}

func TestFsckCommand(t *testing.T) {
	h := newDiskHost(t)
	url := h.url("data")
	h.must("import", rawFile(t, 20<<20), url)
	var r fsck.Report
	if err := json.Unmarshal([]byte(h.must("fsck", url, "--json")), &r); err != nil ||
		r.DamageCount != 0 || r.Segments == 0 || r.Frames != 0 {
		t.Fatalf("%+v %v", r, err)
	}
	logs, err := filepath.Glob(h.dir + "/pool/disks/data/log/*/*")
	if err != nil || len(logs) == 0 {
		t.Fatal(logs, err)
	}
	body, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	body[len(body)-1] ^= 1 // in a frame, which only --data reads
	if err := os.WriteFile(logs[0], body, 0o600); err != nil {
		t.Fatal(err)
	}
	h.must("fsck", url)
	h.refused(exitFailed, "damaged", "fsck", url, "--data")
	if err := os.Remove(logs[0]); err != nil {
		t.Fatal(err)
	}
	h.refused(exitFailed, "damaged", "fsck", url)
	stdout, _, _ := h.run("disk", "fsck", url)
	if !strings.Contains(stdout, "is missing") {
		t.Errorf("the report doesn't say what is missing: %s", stdout)
	}
	h.refused(exitNotFound, "no disk", "fsck", h.url("none"))
}

// TestDiskOnS3 does the main things on an S3 server, with credentials from the usual environment.
func TestDiskOnS3(t *testing.T) {
	h := newDiskHost(t)
	s3 := versitygwtest.Start(t)
	h.env = append(h.env, "AWS_ACCESS_KEY_ID="+versitygwtest.AccessKey,
		"AWS_SECRET_ACCESS_KEY="+versitygwtest.SecretKey)
	url, dir := s3.URL("pool/disks/data"), h.mkdir("mnt")
	h.must("create", url, "--size", "64MiB", "--fs", "ext4")
	h.must("mount", url, dir, "--background")
	h.write(dir+"/a", "over S3")
	h.must("checkpoint", url, "one")
	h.must("detach", dir)
	h.must("fork", url, "one", s3.URL("pool/disks/fork"))
	h.must("mount", s3.URL("pool/disks/fork"), dir, "--background")
	h.check(dir+"/a", "over S3")
	h.must("detach", dir)
	h.must("fsck", url, "--data")
	h.checkFileSystem(s3.URL("pool/disks/fork"))
	h.refused(exitNotFound, "data, fork", "info", s3.URL("pool/disks/none"))
}
