package kek

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"

	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/keyfile"
)

const (
	nonceLen = 12
	// KeyLen is the length of a key in bytes.
	KeyLen = keyfile.Len
)

// File is a key that was read from a file. Immutable; safe for concurrent use.
type File struct {
	aead cipher.AEAD
	id   string
}

// ReadFile reads a key file, as keyfile.Read does.
func ReadFile(path string) (*File, error) {
	key, err := keyfile.Read(path)
	if err != nil {
		return nil, err
	}
	return New(key)
}

// New returns a key-encryption key of the given bytes.
func New(key [keyfile.Len]byte) (*File, error) {
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
