package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestPipes imports from a pipe, a named pipe and a block device, and exports to a pipe.
func TestPipes(t *testing.T) {
	h := newDiskHost(t)
	raw := rawFile(t, 20<<20+512*3)
	content, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	out := func(url string) []byte {
		t.Helper()
		cmd := h.command("disk", "export", url, "-")
		b, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	same := func(url string, size int) {
		t.Helper()
		if got := out(url); len(got) != size || !bytes.Equal(got[:len(content)], content) ||
			len(bytes.Trim(got[len(content):], "\x00")) != 0 {
			t.Errorf("%s: what comes back is not what went in: %d bytes", url, len(got))
		}
		if x := h.info(url); x.MappedBytes > 2<<20 {
			t.Errorf("zeros are stored: %+v", x)
		}
	}
	from := func(r io.Reader, args ...string) (string, int) {
		t.Helper()
		cmd := h.command(append([]string{"disk", "import", "-"}, args...)...)
		cmd.Stdin = r
		said, err := cmd.CombinedOutput()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return string(said), cmd.ProcessState.ExitCode()
	}
	if said, code := from(bytes.NewReader(content), h.url("stdin"), "--size", "21MiB"); code != 0 {
		t.Fatal(said)
	}
	same(h.url("stdin"), 21<<20)
	for _, x := range []struct {
		content []byte
		word    string
		args    []string
	}{
		{content, "--size", nil}, {content, "larger than the disk", []string{"--size", "16MiB"}},
		{nil, "nothing on stdin", []string{"--size", "16MiB"}},
		{[]byte(qcow2Magic + "and so on"), "qcow2", []string{"--size", "16MiB"}},
		{content, "raw", []string{"--size", "16MiB", "--format", "vmdk"}},
	} {
		if said, code := from(bytes.NewReader(x.content), append([]string{h.url("refused")},
			x.args...)...); code != exitUsage || !strings.Contains(said, x.word) {
			t.Errorf("%v: exit %d, want %q: %s", x.args, code, x.word, said)
		}
	}
	h.refused(exitNotFound, "no disk", "info", h.url("refused"))

	fifo := filepath.Join(h.dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	g.Go(func() error { return os.WriteFile(fifo, content, 0o600) })
	h.must("import", fifo, h.url("fifo"), "--size", "21MiB")
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	same(h.url("fifo"), 21<<20)
	h.refused(exitUsage, "pipe", "import", "/dev/null", h.url("refused"))
	h.refused(exitUsage, "raw", "export", h.url("fifo"), "-", "--format", "qcow2")

	// The device is another disk's, which holds the first one's content.
	h.must("attach", h.url("stdin"), "--background")
	h.must("import", h.info(h.url("stdin")).Attachments[0].BlockDevice, h.url("device"))
	h.must("detach", h.url("stdin"))
	same(h.url("device"), 21<<20)
	cmd := exec.CommandContext(t.Context(), "sh", "-c",
		`"$0" disk export "$1" - | head -c 5 >/dev/null`, os.Args[0], h.url("fifo"))
	cmd.Env = append(os.Environ(), h.env...)
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("a pipe whose reader ends: %v: %s", err, said)
	}
}

// TestExportNames: exports at once to one name leave one whole image and an error each, and touch
// no file of others.
func TestExportNames(t *testing.T) {
	h := newDiskHost(t)
	raw := rawFile(t, 20<<20)
	h.must("import", raw, h.url("data"))
	dir := h.mkdir("out")
	victim := h.dir + "/victim"
	h.write(victim, "untouched")
	// where others once wrote their parts
	if err := os.Symlink(victim, filepath.Join(dir, ".a.img.part")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	h.refused(exitConflict, "already", "export", h.url("data"), filepath.Join(dir, "link"))
	codes := make([]int, 4)
	var g errgroup.Group
	for i := range codes {
		g.Go(func() error {
			_, _, codes[i] = h.run("disk", "export", h.url("data"),
				filepath.Join(dir, "a.img"), "--no-pin")
			return nil
		})
	}
	_ = g.Wait() // it returns nil
	won := 0
	for _, code := range codes {
		switch code {
		case 0:
			won++
		case exitConflict:
		default:
			t.Errorf("exit %d", code)
		}
	}
	if won != 1 {
		t.Errorf("%d exports have made one file", won)
	}
	system(t, "cmp", raw, filepath.Join(dir, "a.img"))
	if info, err := os.Stat(victim); err != nil || info.Size() != int64(len("untouched")) {
		t.Errorf("a file of others: %v %v", info, err)
	}
	h.must("export", h.url("data"), filepath.Join(dir, "nbd:a:1.qcow2"))
	h.must("import", filepath.Join(dir, "nbd:a:1.qcow2"), h.url("back"))
	long := filepath.Join(dir, strings.Repeat("n", 250)+".img")
	h.must("export", h.url("back"), long)
	system(t, "cmp", raw, long)
	if there, err := os.ReadDir(dir); err != nil || len(there) != 5 {
		t.Errorf("%v %v", there, err)
	}
}

// TestNameNew gives a name in one step and in two, and never one that is taken.
func TestNameNew(t *testing.T) {
	for how, name := range map[string]func(part, file string) error{"one": nameNew,
		"two": claimName} {
		for _, taken := range []bool{false, true} {
			dir := t.TempDir()
			part, file, want := dir+"/part", dir+"/file", "new"
			if err := os.WriteFile(part, []byte("new"), 0o600); err != nil {
				t.Fatal(err)
			}
			if taken {
				want = "old"
				if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := name(part, file)
			if (errs.Is(err, errs.Exists) || errors.Is(err, os.ErrExist)) != taken ||
				err != nil && !taken {
				t.Errorf("in %s, taken %v: %v", how, taken, err)
			}
			if got, err := os.ReadFile(file); string(got) != want || err != nil {
				t.Errorf("in %s, taken %v: %q %v", how, taken, got, err)
			}
		}
	}
}
