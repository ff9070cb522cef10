//go:build linux

package treesum

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestEveryChangeIsSeen changes one thing after another in a planted tree, and looks whether the
// lines tell it.
func TestEveryChangeIsSeen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tree")
	if err := Plant(dir, 1); err != nil {
		t.Fatal(err)
	}
	file, dangling := filepath.Join(dir, "d0/e0/f0"), filepath.Join(dir, "d1/e1/soft1")
	lines := func() string {
		var b bytes.Buffer
		if err := Write(&b, dir, "/ignored"); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	for _, c := range []struct {
		what string
		do   func() error
	}{
		{"a byte of a file", func() error { return appendTo(filepath.Join(dir, "d6/e1/f6")) }},
		{"an owner", func() error { return os.Chown(file, 1, 1) }},
		{"a mode", func() error { return os.Chmod(file, 0o111) }},
		{"an attribute", func() error {
			return unix.Setxattr(file, "user.number",
				[]byte("x"), 0)
		}},
		{"a hard link", func() error { return os.Remove(filepath.Join(dir, "d0/e0/hard0")) }},
		{"a link's target", func() error { return os.Remove(dangling) }},
		{"a new link", func() error { return os.Symlink("elsewhere", dangling) }},
		{"a time", func() error { return unix.Utimes(file, []unix.Timeval{{Sec: 1}, {Sec: 1}}) }},
		{"an empty directory", func() error { return os.Mkdir(filepath.Join(dir, "new"), 0o755) }},
	} {
		before := lines()
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		if lines() == before {
			t.Errorf("%s changed, and nothing tells", c.what)
		}
	}
	before := lines()
	if err := os.WriteFile(filepath.Join(dir, "ignored"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if after := lines(); after != before || strings.Contains(after, "ignored") {
		t.Error("an excepted file is told")
	}
}

func appendTo(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString("x")
	return err
}
