package authz

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"hash/crc32"
	"strings"
)

// A token's text is slt_<id>_<secret and checksum>. The prefix is for people and for scanners of
// secrets; the checksum tells one that was cut or misspelt from one that is not known.
const (
	tokenPrefix = "slt_"
	idBytes     = 5
	secretBytes = 32
	sumBytes    = 4
)

// encoding is base32 in lower case: no letter in it is taken for another by who reads it aloud.
func encoding() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}

// Secret is a token that was just made. Its text is nowhere else.
type Secret struct {
	ID   string
	Text string
	Hash []byte // what is kept of it
}

// NewSecret makes a token from the system's random source.
func NewSecret() Secret {
	var raw [idBytes + secretBytes]byte
	_, _ = rand.Read(raw[:]) // never fails, by its documentation
	id := encoding().EncodeToString(raw[:idBytes])
	secret := raw[idBytes:]
	coded := encoding().EncodeToString(append(secret, sumOf(id, secret)...))
	return Secret{ID: id, Hash: hashOf(secret), Text: tokenPrefix + id + "_" + coded}
}

// hashOf: the secret is 256 random bits, so that there is nothing to slow a guesser down for.
func hashOf(secret []byte) []byte {
	h := sha256.Sum256(secret)
	return h[:]
}

func sumOf(id string, secret []byte) []byte {
	sum := crc32.ChecksumIEEE(append([]byte(tokenPrefix+id+"_"), secret...))
	return binary.BigEndian.AppendUint32(nil, sum)
}

// LooksLikeToken reports whether a text has the prefix of tokens.
func LooksLikeToken(text string) bool { return strings.HasPrefix(text, tokenPrefix) }

// Presented is a token as it came with a request.
type Presented struct {
	ID   string
	hash []byte
}

// ParseToken takes a token's text apart; false if it was cut or misspelt, or never was one.
func ParseToken(text string) (Presented, bool) {
	rest, ok := strings.CutPrefix(text, tokenPrefix)
	id, coded, parted := strings.Cut(rest, "_")
	if !ok || !parted {
		return Presented{}, false
	}
	raw, err := encoding().DecodeString(coded)
	if err != nil || len(raw) != secretBytes+sumBytes {
		return Presented{}, false
	}
	if encoding().EncodeToString(raw) != coded { // bits of the last letter that mean nothing
		return Presented{}, false
	}
	secret, sum := raw[:secretBytes], raw[secretBytes:]
	if subtle.ConstantTimeCompare(sum, sumOf(id, secret)) != 1 {
		return Presented{}, false
	}
	return Presented{ID: id, hash: hashOf(secret)}, true
}

// Is reports whether it is the token of which hash was kept, in a time that tells nothing.
func (p Presented) Is(hash []byte) bool { return subtle.ConstantTimeCompare(p.hash, hash) == 1 }
