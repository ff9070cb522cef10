package transfer_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/disk/transfer"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func qemuImg(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "qemu-img",
		args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %v: %v: %s", args, err, out)
	}
}

// TestImagesThatReferToOthers: no image gets the content of another file of this host into a disk.
func TestImagesThatReferToOthers(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	secret := in("secret")
	if err := os.WriteFile(secret, bytes.Repeat([]byte("secret! "), 1<<17), 0o600); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", in("backed.qcow2"))
	qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "data_file="+in("data"), in("data.qcow2"), "1M")
	qemuImg(t, "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat",
		in("flat.vmdk"), "1M")
	qemuImg(t, "create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse",
		in("split.vmdk"), "1M")
	qemuImg(t, "create", "-q", "-f", "qed", "-b", secret, "-F", "raw", in("backed.qed"))
	flat, err := os.ReadFile(in("flat.vmdk"))
	if err != nil {
		t.Fatal(err)
	}
	for name, extent := range map[string]string{"file.vmdk": secret,
		"net.vmdk": "nbd://192.0.2.1/secret"} {
		if err := os.WriteFile(in(name),
			bytes.Replace(flat, []byte("flat-flat.vmdk"), []byte(extent), 1), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"backed.qcow2", "data.qcow2", "flat.vmdk", "split.vmdk",
		"backed.qed", "file.vmdk", "net.vmdk"} {
		x, err := transfer.Probe(testCtx(t), in(name), strings.TrimPrefix(filepath.Ext(name), "."))
		if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "refers to") ||
			errs.RemedyOf(err) == "" {
			t.Errorf("%s: %+v %v", name, x, err)
		}
	}
	for _, format := range []string{"nbd", "vvfat", "blkdebug", "file", "json:{}", ""} {
		if _, err := transfer.Probe(testCtx(t), secret, format); !errs.Is(err, errs.Invalid) ||
			errs.RemedyOf(err) == "" {
			t.Errorf("format %q: %v", format, err)
		}
		if err := transfer.ExportImage(testCtx(t), newDisk(t), in("out"), format,
			nil); !errs.Is(err, errs.Invalid) {
			t.Errorf("export to %q: %v", format, err)
		}
	}
}

// TestNamesThatQemuReadsOtherwise takes names that are protocols and options to qemu-img for names.
func TestNamesThatQemuReadsOtherwise(t *testing.T) {
	t.Chdir(t.TempDir())
	d := newDisk(t)
	for _, format := range []string{"qcow2", "vmdk", "vdi", "vhdx", "vpc", "qed", "qcow",
		"parallels"} {
		for _, name := range []string{"nbd:localhost:1", "json:{}", "-h"} {
			name += "." + format
			if err := transfer.ExportImage(testCtx(t), d, name, format, nil); err != nil {
				t.Errorf("export to %s: %v", name, err)
				continue
			}
			if x, err := transfer.Probe(testCtx(t), name, format); err != nil || x.Size < size {
				t.Errorf("probe %s: %+v %v", name, x, err)
			}
			if format != "qcow2" {
				continue
			}
			if err := transfer.ImportImage(testCtx(t), newDisk(t), name, format, nil); err != nil {
				t.Errorf("import %s: %v", name, err)
			}
		}
	}
}
