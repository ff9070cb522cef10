package kek_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/disk/kek"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

var raw = []byte("0123456789abcdefghijklmnopqrstuv")

func write(t *testing.T, content []byte, mode os.FileMode) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, content, mode); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestKeyFiles(t *testing.T) {
	var id string
	for _, content := range []string{string(raw), hex.EncodeToString(raw),
		hex.EncodeToString(raw) + "\n",
		base64.StdEncoding.EncodeToString(raw) + "\n", base64.RawURLEncoding.EncodeToString(raw)} {
		k, err := kek.ReadFile(write(t, []byte(content), 0o600))
		if err != nil {
			t.Fatalf("%q: %v", content, err)
		}
		if id != "" && k.ID() != id {
			t.Errorf("%q is another key", content)
		}
		id = k.ID()
	}
	if strings.Contains(id, hex.EncodeToString(raw[:4])) {
		t.Error("the id tells the key")
	}
	for name, tc := range map[string]struct {
		content string
		mode    os.FileMode
		kind    errs.Kind
	}{"short": {"short", 0o600, errs.Invalid}, "empty": {"", 0o600, errs.Invalid},
		"long":        {strings.Repeat("x", 1000), 0o600, errs.Invalid},
		"group reads": {string(raw), 0o640, errs.Denied},
		"all read":    {string(raw), 0o604, errs.Denied}} {
		if _, err := kek.ReadFile(write(t, []byte(tc.content), tc.mode)); !errs.Is(err, tc.kind) ||
			errs.RemedyOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := kek.ReadFile(filepath.Join(t.TempDir(), "none")); !errs.Is(err, errs.NotFound) ||
		errs.RemedyOf(err) == "" {
		t.Errorf("none: %v", err)
	}
}

func TestFileWraps(t *testing.T) {
	ctx := t.Context()
	a, err := kek.New([32]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	b, err := kek.New([32]byte{9})
	if err != nil {
		t.Fatal(err)
	}
	secret := bytes.Repeat([]byte{7}, 32)
	w, err := a.Wrap(ctx, "disk", secret)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := a.Unwrap(ctx, "disk", w); err != nil || !bytes.Equal(got, secret) {
		t.Fatal(err)
	}
	if w2, err := a.Wrap(ctx, "disk", secret); err != nil || bytes.Equal(w, w2) {
		t.Error("a nonce was used twice")
	}
	for i := range w {
		bad := bytes.Clone(w)
		bad[i] ^= 1
		if _, err := a.Unwrap(ctx, "disk", bad); !errs.Is(err, errs.Denied) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	if _, err := a.Unwrap(ctx, "other", w); !errs.Is(err, errs.Denied) {
		t.Errorf("for another disk: %v", err)
	}
	if _, err := b.Unwrap(ctx, "disk", w); !errs.Is(err, errs.Denied) {
		t.Errorf("by another key: %v", err)
	}
	if _, err := a.Unwrap(ctx, "disk", []byte("x")); !errs.Is(err, errs.Corrupt) {
		t.Errorf("of a byte: %v", err)
	}
}

func TestCommands(t *testing.T) {
	ctx := t.Context()
	script := filepath.Join(t.TempDir(), "kms")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n[ \"$1\" = --tenant ] && shift 2\n"+
		"case $1 in wrap) printf 'uid:%s:' \"$2\"; base64 -w0;; unwrap) IFS=: read -r _ uid rest; [ \"$uid\" = \"$2\" ] || { echo not mine >&2; exit 3; }; printf %s \"$rest\" | base64 -d;; esac\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	k, err := kek.NewCommand(script + " --tenant 'a b'")
	if err != nil {
		t.Fatal(err)
	}
	w, err := k.Wrap(ctx, "01ABC", raw)
	if err != nil || !bytes.HasPrefix(w, []byte("uid:01ABC:")) {
		t.Fatalf("%q %v", w, err)
	}
	if got, err := k.Unwrap(ctx, "01ABC", w); err != nil || !bytes.Equal(got, raw) {
		t.Fatalf("%q %v", got, err)
	}
	if _, err := k.Unwrap(ctx, "01XYZ", w); !errs.Is(err, errs.Denied) ||
		!strings.Contains(err.Error(), "not mine") {
		t.Errorf("for another disk: %v", err)
	}
	for line, kind := range map[string]errs.Kind{"false": errs.Denied, "true": errs.Denied,
		"/no/such/command":               errs.Denied,
		"head -c 100000 /dev/zero; true": errs.Denied} {
		c, err := kek.NewCommand(line)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Wrap(ctx, "x", raw); !errs.Is(err, kind) {
			t.Errorf("%s: %v", line, err)
		} else if strings.Contains(err.Error(), string(raw)) {
			t.Errorf("%s: the error holds the secret", line)
		}
	}
	if _, err := kek.NewCommand("  "); !errs.Is(err, errs.Invalid) {
		t.Errorf("empty: %v", err)
	}
}
