package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/disk/attachment"
	"github.com/sluice-platform/sluice/internal/disk/host"
)

// lines is what a command says, to be looked at while it runs.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestSilentStore: commands whose store refuses connections, or takes them and says nothing, tell
// so while they try on, go on when it answers, and end at once by an interrupt.
func TestSilentStore(t *testing.T) {
	h, s3, url := s3Host(t, "")
	disk := url("data")
	h.must("create", disk, "--size", "64MiB", "--fs", "ext4")
	dir := h.mkdir("mnt")
	verbs := [][]string{{"info", disk}, {"checkpoint", disk, "one"},
		{"export", disk, filepath.Join(h.dir, "x")}, {"fsck", disk}, {"collect", s3.URL("pool")},
		{"mount", disk, dir, "--background"}, {"attach", disk}, {"serve", disk, "--listen", ":0"},
		{"destroy", disk, "--yes"}}
	for _, state := range []struct {
		name        string
		down, again func()
		word        string
	}{
		{"refuses", s3.Kill, func() { s3.Restart(t) }, "refused"},
		{"is silent", func() { s3.Pause(t) }, func() { s3.Resume(t) }, "no answer yet"},
	} {
		state.down()
		for _, verb := range verbs {
			var said lines
			cmd := h.command(append([]string{"disk"}, verb...)...)
			cmd.Stderr = &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			waitFor(t, verb[0]+" says that the store "+state.name, func() bool {
				s := said.String()
				return strings.Contains(s, "data") && strings.Contains(s, state.word) &&
					strings.Contains(s, "trying on for up to 1m0s") || verb[0] == "collect" &&
					strings.Contains(s, "trying on")
			})
			began := time.Now()
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			// the latter with the store's last words
			if code := cmd.ProcessState.ExitCode(); code != exitInterrupted &&
				code != exitUnavailable {
				t.Errorf("%v, interrupted: exit %d: %s", verb, code, said.String())
			}
			// a minute is what it would try on
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("%v took %v to end", verb, took)
			}
		}
		var said lines
		cmd := h.command("disk", "info", disk)
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "info says it", func() bool {
			return strings.Contains(said.String(),
				"trying on")
		})
		state.again()
		if err := cmd.Wait(); err != nil {
			t.Errorf("once the store is back: %v: %s", err, said.String())
		}
	}
	if _, stderr, code := h.run("disk", "info", disk); code != 0 || stderr != "" {
		t.Errorf("with a store that answers: exit %d: %s", code, stderr)
	}
}

// TestBackgroundLogs: a log goes with an attachment that ends in order, or never began; of others
// few are kept.
func TestBackgroundLogs(t *testing.T) {
	h := newDiskHost(t)
	url, dir := h.url("data"), h.mkdir("mnt")
	logs := func() []string {
		t.Helper()
		all, err := filepath.Glob(filepath.Join(h.dir, "run/disks/*"))
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	h.must("create", url, "--size", "64MiB", "--fs", "ext4")
	h.must("mount", url, dir, "--background")
	h.must("checkpoint", url, "one")
	h.refused(exitConflict, "disk detach", "mount", url, h.mkdir("other"), "--background")
	h.must("serve", url, "--socket", h.dir+"/s", "--read-only", "--checkpoint", "one",
		"--background")
	x := h.info(url)
	if len(x.Attachments) != 2 || x.Attachments[0].Log == x.Attachments[1].Log {
		t.Fatalf("%+v", x.Attachments)
	}
	h.must("detach", url)
	if there := logs(); len(there) != 0 {
		t.Errorf("left after the end: %v", there)
	}
	h.refused(exitNotFound, "no disk", "serve", h.url("none"), "--listen", ":0", "--background")
	if there := logs(); len(there) != 0 {
		t.Errorf("left after a failure: %v", there)
	}
	h.must("mount", url, dir, "--background")
	h.must("attach", url, "--background", "--take-over")
	waitFor(t, "the mount is cut off", func() bool {
		// it may be so already
		_ = errors.Join(os.WriteFile(dir+"/a", []byte("late"), 0o600), host.SyncMount(dir))
		return h.info(url).Attachments[0].Ended != ""
	})
	h.refused(exitUnavailable, "not ended in order", "detach", dir)
	h.must("detach", url)
	if there := logs(); len(there) != 1 {
		t.Errorf("the log of the one that was cut off: %v", there)
	}
	old := time.Now().Add(-time.Hour)
	for range attachment.KeptLogs + 5 {
		f, err := attachment.Open(h.dir + "/run/disks").NewLog(url)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if err := os.Chtimes(f.Name(), old, old); err != nil {
			t.Fatal(err)
		}
	}
	h.must("mount", url, dir, "--background")
	// that one is too new to go; its own, its record and its socket are there
	if there := logs(); len(there) > attachment.KeptLogs+1+3 {
		t.Errorf("%d are kept: %v", len(there), there)
	}
	h.must("detach", url)
}

// TestLimitLog empties what grows too large, under who writes it.
func TestLimitLog(t *testing.T) {
	f, err := attachment.Open(t.TempDir()).NewLog("file:///x")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- limitLog(ctx, f.Name(), 1000, time.Millisecond) }()
	if _, err := f.WriteString(strings.Repeat("x", 2000)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "it is emptied", func() bool {
		info, err := os.Stat(f.Name())
		return err == nil &&
			info.Size() == 0
	})
	if _, err := f.WriteString("more"); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(f.Name()); string(b) != "more" || err != nil {
		t.Errorf("%q %v", b, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
