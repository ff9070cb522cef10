// Package keyfile reads keys of 256 bits from files: as they are, in hex, or in base64.
//
// Invariants: no byte of a key is in an error, and a file that others than its owner can read is
// refused.
package keyfile

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"os"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Len is the length of a key in bytes.
const Len = 32

const maxFile = 256 // bytes that are read: base64 and hex with blanks fit

// Read reads a key file. Denied if others than its owner can use it, NotFound if there is none, and
// Invalid if it holds no key.
func Read(path string) (key [Len]byte, err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return key, errs.Wrap(errs.NotFound, err, "there is no key file").
			WithRemedy("check the path, and that what it is on is mounted: what was sealed under a "+
				"key opens with that key alone. Only where nothing is sealed yet, make one: "+
				"(umask 077; head -c32 /dev/urandom > %s)", path)
	}
	if err != nil {
		return key, errs.Wrap(errs.Denied, err, "open the key file")
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return key, errs.Wrap(errs.Unavailable, err, "look at the key file")
	}
	if mode := st.Mode(); mode.IsRegular() && mode.Perm()&0o077 != 0 {
		return key, errs.New(errs.Denied,
			"key file %s can be used by others than its owner (mode %04o)", path, mode.Perm()).
			WithRemedy(
				"chmod 600 %s; and if others may have read it, make another key and change to it",
				path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return key, errs.Wrap(errs.Unavailable, err, "read key file %s", path)
	}
	key, ok := Parse(b)
	if !ok {
		return key, errs.New(errs.Invalid, "key file %s has %d bytes, which are no key of 32 bytes",
			path, len(b)).
			WithRemedy("if something is sealed under it, put its copy there: no other key opens " +
				"that. A key is 32 random bytes, as they are, in hex or in base64")
	}
	return key, nil
}

// Parse understands the three ways to write a key.
func Parse(b []byte) (key [Len]byte, ok bool) {
	if len(b) == Len {
		return [Len]byte(b), true
	}
	text := string(bytes.TrimSpace(b))
	for _, decode := range []func(string) ([]byte, error){hex.DecodeString,
		base64.StdEncoding.DecodeString,
		base64.RawStdEncoding.DecodeString, base64.URLEncoding.DecodeString,
		base64.RawURLEncoding.DecodeString} {
		if k, err := decode(text); err == nil && len(k) == Len {
			return [Len]byte(k), true
		}
	}
	return key, false
}
