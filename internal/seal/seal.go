package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/keyfile"
)

// A sealed value is: version, id of the key, nonce, and what AES-256-GCM made of the value.
const (
	version  = 1
	idLen    = 8
	nonceLen = 12
	headLen  = 1 + idLen + nonceLen
)

// Place is where a sealed value belongs: the kind of its record, and the record's name.
type Place struct{ Kind, Name string }

// Keyring is the fleet's keys: the newest seals, and all of them open. Immutable; safe for
// concurrent use.
type Keyring struct{ keys []key }

type key struct {
	id     [idLen]byte
	aead   cipher.AEAD
	digest []byte
}

// New returns the keyring of keys, newest first. Invalid if there is none, or one of them twice.
func New(keys ...[keyfile.Len]byte) (*Keyring, error) {
	r := &Keyring{}
	for i, raw := range keys {
		if slices.Contains(keys[:i], raw) {
			return nil, errs.New(errs.Invalid, "a fleet key was given twice").
				WithRemedy("give the newest key first, and each only once")
		}
		k, err := derive(raw)
		if err != nil {
			return nil, err
		}
		r.keys = append(r.keys, k)
	}
	if len(r.keys) == 0 {
		return nil, errs.New(errs.Invalid, "a fleet without a key can seal nothing")
	}
	return r, nil
}

// derive makes a key for each purpose, so that none tells anything of another.
func derive(raw [keyfile.Len]byte) (k key, err error) {
	of := func(purpose string, n int) []byte {
		out, derr := hkdf.Key(sha256.New, raw[:], nil, "sluice fleet key "+purpose+" v1", n)
		if err == nil {
			err = derr
		}
		return out
	}
	id, seals, digests := of("id", idLen), of("seal", keyfile.Len), of("digest", keyfile.Len)
	if err != nil {
		return k, errs.Wrap(errs.Internal, err, "derive from the fleet's key")
	}
	block, err := aes.NewCipher(seals)
	if err != nil {
		return k, errs.Wrap(errs.Internal, err, "set up AES")
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return k, errs.Wrap(errs.Internal, err, "set up GCM")
	}
	return key{id: [idLen]byte(id), aead: aead, digest: digests}, nil
}

// Seal seals a value for a place, with the newest key.
func (r *Keyring) Seal(at Place, value []byte) []byte {
	k := r.keys[0]
	out := make([]byte, headLen, headLen+len(value)+k.aead.Overhead())
	out[0] = version
	copy(out[1:], k.id[:])
	nonce := out[1+idLen : headLen]
	_, _ = rand.Read(nonce) // it ends the program rather than to fail
	return k.aead.Seal(out, nonce, value, bound(at, k.id))
}

// Open undoes Seal at the same place. Denied if the fleet's keys lack the one that sealed it, or
// the value was changed, or is another place's.
func (r *Keyring) Open(at Place, sealed []byte) ([]byte, error) {
	if len(sealed) < headLen || sealed[0] != version {
		return nil, errs.New(errs.Corrupt, "%s %s is not sealed in a form that is known here",
			at.Kind, at.Name).
			WithRemedy("run the release that has written it")
	}
	id := [idLen]byte(sealed[1:])
	for _, k := range r.keys {
		if k.id != id {
			continue
		}
		value, err := k.aead.Open(nil, sealed[1+idLen:headLen], sealed[headLen:], bound(at, id))
		if err != nil {
			return nil, errs.Wrap(errs.Denied, err, "%s %s was changed, or moved from elsewhere",
				at.Kind, at.Name).
				WithRemedy("restore the state from a snapshot")
		}
		return value, nil
	}
	return nil, errs.New(errs.Denied,
		"%s %s is sealed under the fleet key %s, and the server has %s",
		at.Kind, at.Name, hex.EncodeToString(id[:]), strings.Join(r.IDs(), ", ")).
		WithRemedy("give the server that key, too, after the newest one")
}

// IsNewest reports whether a value is sealed under the newest key.
func (r *Keyring) IsNewest(sealed []byte) bool {
	return len(sealed) >= headLen && [idLen]byte(sealed[1:]) == r.keys[0].id
}

// IDs returns the fingerprints of the keys, newest first. Nothing of a key can be told from its.
func (r *Keyring) IDs() []string {
	ids := make([]string, 0, len(r.keys))
	for _, k := range r.keys {
		ids = append(ids, hex.EncodeToString(k.id[:]))
	}
	return ids
}

// Digest tells values at one place apart for those who know none of them. Without the key nobody
// can try values against it. It changes with the newest key.
func (r *Keyring) Digest(at Place, value []byte) string {
	mac := hmac.New(sha256.New, r.keys[0].digest)
	mac.Write(bound(at, r.keys[0].id))
	mac.Write(value)
	return hex.EncodeToString(mac.Sum(nil)[:8])
}

// KeyOf returns the fingerprint of the key under which a value is sealed; "" if it is no sealed
// value.
func KeyOf(sealed []byte) string {
	if len(sealed) < headLen || sealed[0] != version {
		return ""
	}
	return hex.EncodeToString(sealed[1 : 1+idLen])
}

// bound is what a sealed value is tied to. Each part has its length before it, so that no two
// places are the same.
func bound(at Place, id [idLen]byte) []byte {
	b := append([]byte("sluice sealed value"), version)
	b = append(b, id[:]...)
	for _, part := range []string{at.Kind, at.Name} {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return b
}
