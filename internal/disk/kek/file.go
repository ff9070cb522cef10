package kek

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"os"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	keyLen     = 32
	nonceLen   = 12
	maxKeyFile = 256 // bytes that are read: base64 and hex with blanks fit
)

// File is a key that was read from a file. Immutable; safe for concurrent use.
type File struct {
	aead cipher.AEAD
	id   string
}

// ReadFile reads a key file: 32 bytes as they are, in hex, or in base64. A file that others than
// its owner can read is refused as Denied.
func ReadFile(path string) (*File, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errs.Wrap(errs.NotFound, err, "there is no key file").
			WithRemedy(
				"check the path; a new key is made by: (umask 077; head -c32 /dev/urandom > %s)",
				path)
	}
	if err != nil {
		return nil, errs.Wrap(errs.Denied, err, "open the key file")
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err, "look at the key file")
	}
	if mode := st.Mode(); mode.IsRegular() && mode.Perm()&0o077 != 0 {
		return nil, errs.New(errs.Denied,
			"key file %s can be used by others than its owner (mode %04o)", path, mode.Perm()).
			WithRemedy(
				"chmod 600 %s; and if others may have read it, make another key and: sluice disk rekey", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err, "read key file %s", path)
	}
	key, ok := parseKey(b)
	if !ok {
		return nil, errs.New(errs.Invalid, "key file %s has %d bytes, which are no key of 32 bytes",
			path, len(b)).
			WithRemedy(
				"give 32 random bytes, as they are, in hex or in base64: (umask 077; head -c32 /dev/urandom > FILE)")
	}
	return New(key)
}

// parseKey understands the three ways to write a key.
func parseKey(b []byte) (key [keyLen]byte, ok bool) {
	if len(b) == keyLen {
		return [keyLen]byte(b), true
	}
	text := string(bytes.TrimSpace(b))
	for _, decode := range []func(string) ([]byte, error){hex.DecodeString,
		base64.StdEncoding.DecodeString,
		base64.RawStdEncoding.DecodeString, base64.URLEncoding.DecodeString,
		base64.RawURLEncoding.DecodeString} {
		if k, err := decode(text); err == nil && len(k) == keyLen {
			return [keyLen]byte(k), true
		}
	}
	return key, false
}

// New returns a key-encryption key of the given bytes.
func New(key [keyLen]byte) (*File, error) {
	fingerprint, err := hkdf.Key(sha256.New, key[:], nil, "sluice key-encryption key id v1", 8)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "derive the key's id")
	}
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "set up AES")
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "set up GCM")
	}
	return &File{aead: aead, id: "file:" + hex.EncodeToString(fingerprint)}, nil
}

// ID returns a fingerprint of the key, from which nothing about it can be told.
func (k *File) ID() string { return k.id }

// Wrap encrypts a secret for the disk with that uid, under a random nonce, which comes first.
func (k *File) Wrap(_ context.Context, uid string, secret []byte) ([]byte, error) {
	nonce := make([]byte, nonceLen, nonceLen+len(secret)+k.aead.Overhead())
	_, _ = rand.Read(nonce) // it ends the program rather than to fail
	return k.aead.Seal(nonce, nonce, secret, wrapAAD(uid)), nil
}

// Unwrap undoes Wrap. Denied if it was another key, or for another disk.
func (k *File) Unwrap(_ context.Context, uid string, wrapped []byte) ([]byte, error) {
	if len(wrapped) < nonceLen {
		return nil, errs.New(errs.Corrupt, "a wrapped key of %d bytes", len(wrapped))
	}
	secret, err := k.aead.Open(nil, wrapped[:nonceLen], wrapped[nonceLen:], wrapAAD(uid))
	if err != nil {
		return nil, errs.Wrap(errs.Denied, err, "the key in the key file (%s) is not the one", k.id)
	}
	return secret, nil
}

func wrapAAD(uid string) []byte { return []byte("sluice disk key v1 " + uid) }
