package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// withXFS makes a disk with xfs on it.
func (h *diskHost) withXFS(url, size string) {
	h.t.Helper()
	h.must("create", url, "--size", size)
	h.must("attach", url, "--background")
	device := h.info(url).Attachments[0].BlockDevice
	system(h.t, "mkfs.xfs", "-q", device)
	h.must("detach", device)
}

// TestResizeMountedUnderWriters grows the disk of a mount and the file system on it while files are
// written, and kills the process that has it at some moment of that, over and over. What was
// fsynced stays; the command given again finishes.
func TestResizeMountedUnderWriters(t *testing.T) {
	h := newDiskHost(t)
	url, dir := h.url("data"), h.mkdir("mnt")
	h.withXFS(url, "320MiB")
	size, acked, grown := int64(320<<20), 0, 0
	for round := range 5 {
		cmd, _ := h.foreground("mount", url, dir)
		h.checkFiles(dir, acked)
		was := h.info(url).SizeBytes
		done, begun := make(chan int, 1), make(chan struct{})
		go func() { done <- writeUntilItFails(dir, acked, begun) }()
		<-begun
		want := size + int64(round+1)*(64<<20)
		killed := make(chan error, 1)
		time.AfterFunc(time.Duration(4*round)*time.Millisecond,
			func() { killed <- cmd.Process.Kill() })
		_, _, code := h.run("disk", "resize", url, "--size", fmt.Sprint(want>>20)+"MiB")
		if err := <-killed; err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		acked = <-done
		_ = unix.Unmount(dir, unix.MNT_DETACH)
		if x := h.info(url); x.SizeBytes != was && x.SizeBytes != want || code == 0 &&
			x.SizeBytes != want {
			t.Errorf("round %d: %d bytes after %d, to be %d; exit %d", round, x.SizeBytes,
				was, want, code)
		} else if x.SizeBytes == want {
			grown++
		}
	}
	h.must("mount", url, dir, "--background")
	h.checkFiles(dir, acked)
	var r resized
	for range 2 {
		if err := json.Unmarshal([]byte(h.must("resize", url, "--size", "768MiB", "--json")),
			&r); err != nil {
			t.Fatal(err)
		}
		if r.SizeBytes != 768<<20 || r.FileSystemBytes < 680<<20 || r.Note != "" {
			t.Errorf("%+v", r)
		}
	}
	if n := system(t, "blockdev", "--getsize64",
		h.info(url).Attachments[0].BlockDevice); strings.TrimSpace(n) != fmt.Sprint(768<<20) {
		t.Errorf("the block device has %s bytes", n)
	}
	h.refused(exitUsage, "shrink", "resize", url, "--size", "512MiB")
	big := filepath.Join(dir, "big")
	// more than there was room for
	if err := os.WriteFile(big, make([]byte, 330<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(big); err != nil {
		t.Fatal(err)
	}
	h.must("detach", dir)
	h.must("attach", url, "--background")
	device := h.info(url).Attachments[0].BlockDevice
	system(t, "xfs_repair", "-n", device)
	if out := h.must("resize", url, "--size", "2GiB"); !strings.Contains(out, "2 GiB") {
		t.Error(out)
	}
	if n := system(t, "blockdev", "--getsize64",
		device); strings.TrimSpace(n) != fmt.Sprint(2<<30) {
		t.Errorf("the block device has %s bytes", n)
	}
	h.must("detach", device)
	h.must("fsck", url, "--data")
	t.Logf("%d files, %d of 5 kills left the new size", acked, grown)
}

// TestResizeElsewhere: of an ext4 mount the device grows, and if this process may not resize the
// file system, that is said; an NBD server's clients connect again; a holder that can't be asked is
// named.
func TestResizeElsewhere(t *testing.T) {
	h := newDiskHost(t)
	url, dir, served := h.url("data"), h.mkdir("mnt"), h.url("served")
	h.must("create", url, "--size", "64MiB", "--fs", "ext4")
	h.must("mount", url, dir, "--background")
	h.write(dir+"/a", "one")
	stdout, stderr, code := h.run("disk", "resize", url, "--size", "256MiB")
	switch {
	case code == exitDenied && strings.Contains(stderr, "the file system has not") &&
		strings.Contains(stderr, "CAP_SYS_RESOURCE"):
		t.Log("this process may not resize a mounted ext4")
	case code != 0:
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	if n := system(t, "blockdev", "--getsize64",
		h.info(url).Attachments[0].BlockDevice); strings.TrimSpace(n) != "268435456" {
		t.Errorf("the block device has %s bytes", n)
	}
	h.check(dir+"/a", "one")
	h.must("detach", dir)
	h.checkFileSystem(url)

	h.must("create", served, "--size", "64MiB")
	h.must("serve", served, "--socket", filepath.Join(h.dir, "s"), "--background")
	uri := h.info(served).Attachments[0].NBD[0]
	if _, stderr, code := h.run("disk", "resize", served, "--size", "128MiB"); code != 0 ||
		!strings.Contains(stderr, "connect again") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if n := system(t, "nbdinfo", "--size", uri); strings.TrimSpace(n) != "134217728" {
		t.Errorf("a client that connects sees %s bytes", n)
	}
	elsewhere := &diskHost{t: t, dir: h.dir,
		env: []string{"SLUICE_RUN_DIR=" + filepath.Join(h.dir, "another")}}
	elsewhere.refused(exitConflict, "in use by process", "resize", served, "--size", "256MiB")
	h.must("detach", served)
	if x := h.info(served); x.SizeBytes != 128<<20 {
		t.Errorf("%+v", x)
	}
}
