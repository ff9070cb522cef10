package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestKilledBoundedMount kills the process of a mount with a journal while files are written and
// fsynced. With the journal all that was acknowledged is there; a copy of the store shows that
// without it some is not. No verb attaches the disk without it.
func TestKilledBoundedMount(t *testing.T) {
	h := newDiskHost(t)
	url, dir, other, journal := h.url("data"), h.mkdir("mnt"), h.mkdir("other"),
		filepath.Join(h.dir, "journal")
	h.must("create", url, "--size", "64MiB", "--fs", "ext4", "--mode", "bounded=10s")
	acked, lacking := 0, 0
	for round := range 3 {
		cmd, _ := h.foreground("mount", url, dir, "--journal", journal, "--journal-size", "8")
		h.checkFiles(dir, acked)
		if x := h.info(url); len(x.Attachments) != 1 ||
			x.Attachments[0].Acknowledges != "journal" || x.BoundMS != 10_000 {
			t.Errorf("%+v", x)
		}
		done, begun := make(chan int, 1), make(chan struct{})
		go func() { done <- writeUntilItFails(dir, acked, begun) }()
		select {
		case <-begun:
		case acked = <-done:
			t.Fatalf("no file could be written in round %d, after %d", round, acked)
		}
		time.Sleep(time.Duration(13*round) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		acked = <-done
		lacking += h.withoutJournal(dir, other, round, acked)
		h.refusedWithoutJournal(url, dir)
	}
	t.Logf("%d files acknowledged over 3 kills; without the journal %d would lack", acked, lacking)
	if lacking == 0 {
		t.Error("nothing lacks without the journal: this test tests nothing")
	}
	// another verb recovers, and closes
	h.must("resize", url, "--size", "128MiB", "--journal", journal)
	h.must("mount", url, dir, "--journal", journal, "--background")
	h.checkFiles(dir, acked)
	h.must("detach", dir)
	h.checkFileSystem(url)
	h.must("fsck", url, "--data")
	if stdout := h.must("info", url); !strings.Contains(stdout, "bounded, at most 10s") {
		t.Error(stdout)
	}
}

// checkFiles looks for the files that writeUntilItFails has written.
func (h *diskHost) checkFiles(dir string, n int) {
	h.t.Helper()
	for i := 1; i <= n; i++ {
		h.check(fmt.Sprintf("%s/%d", dir, i), strings.Repeat(fmt.Sprint(i, " "), 300))
	}
}

// withoutJournal mounts a copy of the pool without the journal and returns how many of n
// acknowledged files lack.
func (h *diskHost) withoutJournal(dead, dir string, round, n int) (lacking int) {
	h.t.Helper()
	_ = syscall.Unmount(dead, syscall.MNT_DETACH) // what the killed process has left
	pool := filepath.Join(h.dir, fmt.Sprint("copy", round))
	if err := os.CopyFS(pool, os.DirFS(filepath.Join(h.dir, "pool"))); err != nil {
		h.t.Fatal(err)
	}
	url := "file://" + pool + "/disks/data"
	h.must("mount", url, dir, "--discard-journal", "--background")
	if x := h.info(url); len(x.Attachments) != 1 || x.Attachments[0].Acknowledges != "store" {
		h.t.Errorf("%+v", x)
	}
	for i := 1; i <= n; i++ {
		got, err := os.ReadFile(fmt.Sprintf("%s/%d", dir, i))
		if err != nil || string(got) != strings.Repeat(fmt.Sprint(i, " "), 300) {
			lacking++
		}
	}
	h.must("detach", dir)
	h.checkFileSystem(url)
	return lacking
}

func (h *diskHost) refusedWithoutJournal(url, dir string) {
	h.t.Helper()
	wrong, missing := filepath.Join(h.dir, "wrong"), filepath.Join(h.dir, "missing")
	if err := os.WriteFile(wrong, make([]byte, 1<<20), 0o600); err != nil {
		h.t.Fatal(err)
	}
	before := h.info(url)
	for _, verb := range [][]string{{"mount", url, dir}, {"attach", url},
		{"serve", url, "--socket", filepath.Join(h.dir, "s")}, {"checkpoint", url, "c"},
		{"resize", url, "--size", "1GiB"}, {"restore", url, "c"},
		{"export", url, filepath.Join(h.dir, "raw")}} {
		h.refused(exitConflict, "last attached on this host", verb...)
		h.refused(exitConflict, "last attached on this host", append(verb, "--take-over")...)
		h.refused(exitConflict, "not the journal of its last writer",
			append(verb, "--journal", wrong)...)
		h.refused(exitConflict, "not the journal of its last writer",
			append(verb, "--journal", missing)...)
	}
	if after := h.info(url); after.Epoch != before.Epoch || after.State != "open" {
		h.t.Errorf("a refused attach has changed the disk: %+v", after)
	}
	if _, err := os.Stat(missing); err == nil {
		h.t.Error("a refused attach has made a journal")
	}
}

func TestModeFlags(t *testing.T) {
	h := newDiskHost(t)
	key := h.key("key", 1, 0o600)
	for _, bad := range []string{"", "fast", "bounded", "bounded=", "bounded=5", "bounded=99ms",
		"bounded=61m", "bounded=1000.5ms", "durable=5s"} {
		h.want(exitUsage, "bounded=T", "disk", "create", h.url("b"), "--size", "1MiB",
			"--mode", bad)
	}
	h.want(exitUsage, "in the clear", "disk", "create", h.url("b"), "--size", "1MiB", "--mode",
		"bounded=5s", "--encrypt", "--key-file", key)
	h.must("create", h.url("d"), "--size", "1MiB", "--mode", "durable")
	h.refused(exitUsage, "has no journal", "serve", h.url("d"), "--socket",
		filepath.Join(h.dir, "s"), "--journal", filepath.Join(h.dir, "j"))
	h.want(exitUsage, "are for writers", "disk", "serve", h.url("d"), "--socket", "s",
		"--read-only", "--journal", "j")
	h.must("create", h.url("b"), "--size", "1MiB", "--mode", "bounded=100ms")
	if x := h.info(h.url("b")); x.Mode != "bounded" || x.BoundMS != 100 {
		t.Errorf("%+v", x)
	}
	h.want(exitUsage, "of a --journal", "disk", "serve", h.url("b"), "--socket",
		filepath.Join(h.dir, "s"), "--journal-size", "8")
}
