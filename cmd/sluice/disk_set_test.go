package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSetModeOfAMountedDisk changes the mode of a mounted disk, there and back, while files are
// written and fsynced, and kills the mount after each.
func TestSetModeOfAMountedDisk(t *testing.T) {
	h := newDiskHost(t)
	url, dir, journal := h.url("data"), h.mkdir("mnt"), filepath.Join(h.dir, "journal")
	h.must("create", url, "--size", "64MiB", "--fs", "ext4")
	h.refused(exitUsage, "durable, or bounded=T", "set", url, "--mode", "quick")
	acked := 0
	for round, to := range []string{"bounded=10s", "durable"} {
		args := []string{url, dir}
		if to == "durable" {
			args = append(args, "--journal", journal)
		}
		cmd, _ := h.foreground(append([]string{"mount"}, args...)...)
		h.checkFiles(dir, acked)
		done, begun := make(chan int, 1), make(chan struct{})
		go func() { done <- writeUntilItFails(dir, acked, begun) }()
		<-begun
		if to == "durable" {
			h.refused(exitConflict, "has a journal in use", "set", url, "--mode", "bounded=5s",
				"--journal", journal+"2")
		} else {
			h.refused(exitUsage, "attached without one", "set", url, "--mode", to)
		}
		for range 2 { // the second time there is nothing to do
			if out := h.must("set", url, "--mode", to, "--journal", journal, "--journal-size",
				"8"); !strings.Contains(out, strings.Split(to, "=")[0]) {
				t.Error(out)
			}
		}
		// A journal acknowledges once the store has all that was written before it.
		want := map[string]string{"bounded=10s": "bounded journal", "durable": "durable store"}[to]
		got := ""
		for end := time.Now().Add(2 * time.Minute); got != want; time.Sleep(20 * time.Millisecond) {
			x := h.info(url)
			got = x.Mode + " " + x.Attachments[0].Acknowledges
			if time.Now().After(end) {
				t.Fatalf("it is %s, want %s", got, want)
			}
		}
		time.Sleep(time.Duration(50+30*round) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		acked = <-done
		if to != "durable" {
			h.refused(exitConflict, "last attached on this host", "set", url, "--mode", "durable")
		}
	}
	if err := os.Remove(journal); err != nil { // nothing needs it any more
		t.Fatal(err)
	}
	h.must("mount", url, dir, "--background")
	h.checkFiles(dir, acked)
	h.must("detach", dir)
	h.checkFileSystem(url)
	h.must("fsck", url, "--data")
	if acked < 10 {
		t.Errorf("only %d files were written", acked)
	}
}

// TestSetModeOfAClosedDisk sets the mode for the next attach, and what is refused changes nothing.
func TestSetModeOfAClosedDisk(t *testing.T) {
	h := newDiskHost(t)
	url, journal := h.url("data"), filepath.Join(h.dir, "journal")
	h.must("create", url, "--size", "1MiB")
	for _, to := range []struct {
		mode string
		ms   int64
	}{{"bounded=2s", 2000}, {"bounded=2s", 2000}, {"bounded=500ms", 500}, {"durable", 0},
		{"durable", 0}} {
		h.must("set", url, "--mode", to.mode)
		if x := h.info(url); x.BoundMS != to.ms || x.State != "closed" ||
			x.Mode != strings.Split(to.mode, "=")[0] {
			t.Errorf("%s: %+v", to.mode, x)
		}
	}
	sealed, key := h.url("sealed"), h.key("key", 1, 0o600)
	h.must("create", sealed, "--size", "1MiB", "--encrypt", "--key-file", key)
	h.refused(exitFailed, "in the clear", "set", sealed, "--mode", "bounded=2s")
	h.must("serve", sealed, "--socket", filepath.Join(h.dir, "s"), "--background",
		"--key-file", key)
	h.refused(exitFailed, "in the clear", "set", sealed, "--mode", "bounded=2s",
		"--journal", journal)
	h.must("detach", sealed)
	if _, err := os.Stat(journal); err == nil {
		t.Error("a refused change has made a journal")
	}
	h.refused(exitNotFound, "there is no disk", "set", h.url("none"), "--mode", "durable")
	if x := h.info(sealed); x.Mode != "durable" || x.State != "closed" {
		t.Errorf("%+v", x)
	}
}
