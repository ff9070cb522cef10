package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAttachAndTop: a block device without a mount, of an encrypted disk, and what top sees of it.
func TestAttachAndTop(t *testing.T) {
	h := newDiskHost(t)
	url, key := h.url("dev"), h.key("key", 1, 0o600)
	h.must("create", url, "--size", "64MiB", "--fs", "ext4", "--encrypt", "--key-file", key)
	h.want(0, "no disk is attached", "disk", "top", "--once")
	h.refused(exitDenied, "no key was given", "attach", url)
	h.must("attach", url, "--background", "--key-file", key)
	x := h.info(url)
	if len(x.Attachments) != 1 || x.Attachments[0].Mode != "device" ||
		!strings.HasPrefix(x.Attachments[0].BlockDevice, "/dev/loop") {
		t.Fatalf("%+v", x)
	}
	device := x.Attachments[0].BlockDevice
	h.refused(exitConflict, "has it attached as "+device, "attach", url, "--key-file", key)
	dir := h.mkdir("mnt")
	system(t, "mount", device, dir)
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() { done <- writeAndSync(filepath.Join(dir, "f"), stop) }()
	var rows []topRow
	waitFor(t, "top sees flushes", func() bool {
		if err := json.Unmarshal([]byte(h.must("top", "--json", "--every", "300ms")),
			&rows); err != nil {
			t.Fatal(err)
		}
		return len(rows) == 1 && rows[0].Flushes > 0 && rows[0].FlushP99MS >= rows[0].FlushP50MS &&
			rows[0].FlushP50MS > 0
	})
	if r := rows[0]; r.URL != url || r.Writes == 0 || r.WriteBytes < r.Writes || r.StorePuts == 0 ||
		r.State != "ok" {
		t.Errorf("%+v", r)
	}
	h.want(0, "P99MS", "disk", "top", "--once", "--every", "100ms")
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	h.must("detach", device)
	if x := h.info(url); x.State != "closed" || len(x.Attachments) != 0 {
		t.Errorf("%+v", x)
	}
}

// writeAndSync writes a file and fsyncs it, over and over.
func writeAndSync(file string, stop <-chan struct{}) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	for i := int64(0); ; i++ {
		select {
		case <-stop:
			return nil
		case <-time.After(5 * time.Millisecond):
		}
		if _, err := f.WriteAt(bytes.Repeat([]byte{byte(i)}, 8192), i%100*8192); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
}
