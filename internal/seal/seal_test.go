package seal_test

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/seal"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

var (
	first  = [32]byte([]byte("first-fleet-key-of-32-bytes-here"))
	second = [32]byte([]byte("second-fleet-key-of-32-bytes-is!"))
	here   = seal.Place{Kind: "secrets", Name: "shop/TOKEN"}
	value  = []byte("what nobody may read")
)

func ring(t *testing.T, keys ...[32]byte) *seal.Keyring {
	t.Helper()
	r, err := seal.New(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAValueOpensAtItsPlaceOnly(t *testing.T) {
	r := ring(t, first)
	sealed := r.Seal(here, value)
	if bytes.Contains(sealed, value) || bytes.Equal(sealed, r.Seal(here, value)) {
		t.Error("it is in the clear, or a nonce was used twice")
	}
	if got, err := r.Open(here, sealed); err != nil || !bytes.Equal(got, value) {
		t.Fatalf("%q, %v", got, err)
	}
	for _, at := range []seal.Place{{Kind: "networks", Name: here.Name},
		{Kind: here.Kind, Name: "shop/OTHER"},
		{Kind: "secretss", Name: "hop/TOKEN"}, {Kind: "secret", Name: "sshop/TOKEN"}} {
		if _, err := r.Open(at, sealed); !errs.Is(err, errs.Denied) {
			t.Errorf("at %v: %v", at, err)
		}
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := r.Open(here, bad); err == nil {
			t.Errorf("byte %d was changed, and nobody noticed", i)
		}
	}
	for n := range sealed {
		if _, err := r.Open(here, sealed[:n]); err == nil {
			t.Errorf("the first %d bytes open", n)
		}
	}
}

func TestKeysChange(t *testing.T) {
	old, both := ring(t, first), ring(t, second, first)
	sealed := old.Seal(here, value)
	if both.IsNewest(sealed) || !old.IsNewest(sealed) || seal.KeyOf(sealed) != old.IDs()[0] {
		t.Error("which key sealed it is not told")
	}
	got, err := both.Open(here, sealed)
	if err != nil || !bytes.Equal(got, value) {
		t.Fatalf("the older key does not open: %v", err)
	}
	anew := both.Seal(here, got)
	if !both.IsNewest(anew) {
		t.Error("the newest key does not seal")
	}
	if got, err := ring(t, second).Open(here, anew); err != nil || !bytes.Equal(got, value) {
		t.Errorf("the newest key alone: %v", err)
	}
	_, err = old.Open(here, anew)
	if !errs.Is(err, errs.Denied) || !strings.Contains(err.Error(), both.IDs()[0]) ||
		errs.RemedyOf(err) == "" {
		t.Errorf("the older key alone: %v", err)
	}
	for _, id := range both.IDs() {
		if strings.Contains(hex.EncodeToString(append(first[:], second[:]...)), id) {
			t.Error("an id tells of the key")
		}
	}
	if _, err := seal.New(first, first); !errs.Is(err, errs.Invalid) {
		t.Errorf("a key twice: %v", err)
	}
	if _, err := seal.New(); !errs.Is(err, errs.Invalid) {
		t.Errorf("no key: %v", err)
	}
}

func TestADigestTellsValuesApartAndNoMore(t *testing.T) {
	r, at := ring(t, first), seal.Place{Kind: "secrets", Name: "blog/TOKEN"}
	d := r.Digest(here, value)
	if d != r.Digest(here, bytes.Clone(value)) || d == r.Digest(here, value[1:]) {
		t.Error("it doesn't tell values apart")
	}
	if d == r.Digest(at, value) || d == ring(t, second).Digest(here, value) {
		t.Error("who sees digests of two apps, or has no key, can compare")
	}
}

func TestWhereKeysComeFrom(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	file := filepath.Join(dir, "key")
	if err := os.WriteFile(file, []byte(hex.EncodeToString(first[:])+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := (seal.Sources{}).Load(ctx); err != nil || r != nil {
		t.Errorf("no source: %v, %v", r, err)
	}
	r, err := seal.Sources{Files: []string{file},
		Commands: []string{"printf " + hex.EncodeToString(second[:])}}.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if want := ring(t, first, second).IDs(); strings.Join(r.IDs(), " ") != strings.Join(want, " ") {
		t.Errorf("keys %v, want %v", r.IDs(), want)
	}
	for line, kind := range map[string]errs.Kind{"echo " + string(first[:]) + "x": errs.Invalid,
		"printf " + string(first[:]) + "; exit 3": errs.Denied, "/no/such/program": errs.Denied} {
		_, err := seal.Sources{Commands: []string{line}}.Load(ctx)
		if !errs.Is(err, kind) || errs.RemedyOf(err) == "" {
			t.Errorf("%s: %v", line, err)
		} else if strings.Contains(err.Error()+errs.RemedyOf(err), string(first[:])) {
			t.Errorf("the error holds the key")
		}
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := (seal.Sources{Files: []string{file}}).Load(ctx); !errs.Is(err, errs.Denied) {
		t.Errorf("a file that all can read: %v", err)
	}
}
