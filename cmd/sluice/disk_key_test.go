package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// key makes a key file.
func (h *diskHost) key(name string, content byte, mode os.FileMode) string {
	h.t.Helper()
	file := filepath.Join(h.dir, name)
	if err := os.WriteFile(file, bytes.Repeat([]byte{content}, 32), mode); err != nil {
		h.t.Fatal(err)
	}
	return file
}

// want runs a command, which must end with a code and say something on stdout or stderr.
func (h *diskHost) want(code int, says string, args ...string) string {
	h.t.Helper()
	out, bad, got := h.run(args...)
	if got != code || !strings.Contains(out+bad, says) {
		h.t.Errorf("%q: exit %d, want %d and %q\n%s%s", args, got, code, says, out, bad)
	}
	return out
}

func TestEncryptedDiskOnTheCommandLine(t *testing.T) {
	h := newDiskHost(t)
	url, key, other := h.url("e"), h.key("key", 1, 0o600), h.key("other", 2, 0o600)
	open := h.key("open", 3, 0o644)
	raw := filepath.Join(h.dir, "raw")
	content := bytes.Repeat([]byte("what nobody may see in the store. "), 1<<15)
	content = content[:1<<20]
	if err := os.WriteFile(raw, content, 0o600); err != nil {
		t.Fatal(err)
	}
	h.want(2, "--key-file", "disk", "import", raw, url, "--encrypt")
	h.want(2, "in the clear", "disk", "import", raw, url, "--key-file", key)
	h.want(2, "not both", "disk", "create", url, "--size", "1MiB", "--encrypt", "--key-file", key,
		"--key-command", "x")
	if _, bad, code := h.run("disk", "import", raw, url, "--encrypt", "--key-file",
		open); code == 0 || !strings.Contains(bad, "chmod 600") {
		t.Errorf("a key that others can read: %d %s", code, bad)
	}
	h.want(0, "1 MiB", "disk", "import", raw, url, "--encrypt", "--key-file", key)
	h.want(0, "aes-256-gcm, key 1, wrapped by file:", "disk", "info", url)
	if err := filepath.WalkDir(filepath.Join(h.dir, "pool"),
		func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				b, rerr := os.ReadFile(path)
				if err = rerr; bytes.Contains(b, []byte("what nobody")) {
					t.Errorf("the content is in %s", path)
				}
			}
			return err
		}); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(h.dir, "out")
	for _, args := range [][]string{{"disk", "export", url, out},
		{"disk", "export", url, out, "--key-file", other}} {
		if _, bad, code := h.run(args...); code == 0 || !strings.Contains(bad, "--key-file") &&
			!strings.Contains(bad, "wrong key") {
			t.Errorf("%q: %d %s", args, code, bad)
		}
	}
	h.want(0, "only checksums were checked", "disk", "fsck", url, "--data")
	if s := h.want(0, "Damage", "disk", "fsck", url, "--data", "--key-file",
		key); strings.Contains(s, "Locked") {
		t.Error(s)
	}
	h.want(0, "c", "disk", "checkpoint", url, "c")
	h.want(0, "1 MiB", "disk", "fork", url, "c", h.url("f"), "--key-file", key,
		"--new-key-file", other)
	script := filepath.Join(h.dir, "kms")
	if err := os.WriteFile(script,
		[]byte("#!/bin/sh\ncase $1 in wrap) base64;; unwrap) base64 -d;; esac\n"),
		0o700); err != nil {
		t.Fatal(err)
	}
	h.want(0, "wrapped by command", "disk", "rekey", url, "--key-file", key,
		"--new-key-command", script)
	if _, bad, code := h.run("disk", "export", url, out, "--key-file", key); code == 0 {
		t.Errorf("the old key: %s", bad)
	}
	h.env = append(h.env, "SLUICE_KEY_COMMAND="+script)
	h.want(0, "1 MiB", "disk", "export", url, out)
	h.want(0, "1 MiB", "disk", "export", h.url("f"), out+"2", "--key-file", other)
	for _, file := range []string{out, out + "2"} {
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s differs: %v", file, err)
		}
	}
	h.want(2, "not encrypted", "disk", "rekey", h.clear(), "--new-key-file", other)
}

// clear makes a disk in the clear.
func (h *diskHost) clear() string {
	h.want(0, "MiB", "disk", "create", h.url("clear"), "--size", "1MiB")
	return h.url("clear")
}
