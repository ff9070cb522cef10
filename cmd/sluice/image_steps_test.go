package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creack/pty"
)

// Without a terminal each step that lasts is a line, and what is quick is none.
func TestStepsWithoutATerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := (&deps{stderr: &out}).newSteps(t.Context(), "image base")
		s.step("quick")
		time.Sleep(900 * time.Millisecond)
		s.step("slow")
		time.Sleep(4 * time.Second)
		synctest.Wait()
		body := s.reader(strings.NewReader("body"), "sending", 4, "waiting")
		if got, err := io.ReadAll(body); string(got) != "body" || err != nil {
			t.Errorf("%q %v", got, err)
		}
		time.Sleep(1500 * time.Millisecond)
		s.step("the last, which is quick")
		s.end()
		s.end()
		time.Sleep(time.Minute)
		if want := "image base: slow (after 2s)\nimage base: waiting (after 6s)\n"; out.String() != want {
			t.Errorf("got\n%swant\n%s", out.String(), want)
		}
	})
}

// On a terminal one line says what goes on, and is gone at the end.
func TestStepsOnATerminal(t *testing.T) {
	user, side, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	if err := pty.Setsize(user, &pty.Winsize{Rows: 24, Cols: 100}); err != nil {
		t.Fatal(err)
	}
	seen := make(chan string)
	go func() {
		text, _ := io.ReadAll(user) // its end is an error
		seen <- string(text)
	}()
	s := (&deps{stderr: side}).newSteps(t.Context(), "image base")
	s.begin("sending its files", 2<<20)
	for range 20 {
		time.Sleep(100 * time.Millisecond)
	}
	s.end()
	side.Close()
	if text := <-seen; !strings.Contains(text, "image base: sending its files, 2s, 0 B of 2 MiB") &&
		!strings.Contains(text, "image base: sending its files, 1s") {
		t.Errorf("%q", text)
	}
}

// The cache is where it is said to be, and its trees are listed and removed.
func TestImageCacheCommands(t *testing.T) {
	c := newCLI(t)
	c.env["XDG_CACHE_HOME"] = t.TempDir()
	dir := filepath.Join(c.env["XDG_CACHE_HOME"], "sluice", "images")
	if got := c.must("image", "cache", "list"); !strings.HasSuffix(got, "in "+dir+"\n") {
		t.Errorf("an empty one: %q", got)
	}
	tree := filepath.Join(dir, "debian-bookworm-x")
	if err := errors.Join(os.MkdirAll(filepath.Join(tree, "tree"), 0o755),
		os.WriteFile(filepath.Join(tree, "used"), []byte("2097152"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if got := c.must("image", "cache", "list"); !strings.Contains(got, "debian-bookworm-x  2 MiB") {
		t.Errorf("%q", got)
	}
	if got := c.must("image", "cache", "prune", "--json"); strings.TrimSpace(got) != "[]" {
		t.Errorf("pruned within the limit: %s", got)
	}
	if got := c.must("image", "cache", "prune", "--cache-limit", "1MiB"); !strings.Contains(got,
		"debian-bookworm-x") {
		t.Errorf("%q", got)
	}
	if _, err := os.Stat(tree); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
	if _, stderr, code := c.run("image", "create", "x", "--from", ".", "--mirror",
		"http://m.example"); code != 2 || !strings.Contains(stderr, "--from debian only") {
		t.Errorf("%d %s", code, stderr)
	}
}
