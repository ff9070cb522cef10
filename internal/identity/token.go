package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"strings"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Token lets one worker into the fleet, once.
type Token struct {
	ID        string // not secret
	Secret    string
	Authority string // Authority.Hash of who made it: the worker knows the server by it
}

const tokenPrefix = "sluice-join"

// NewToken returns a token of an authority.
func NewToken(authority string) Token {
	t := Token{ID: randomText(5), Secret: randomText(secretBytes), Authority: authority}
	t.Secret += checksum(t.ID, t.Secret, authority)
	return t
}

const (
	secretBytes = 20
	secretLen   = secretBytes * 8 / 5 // characters, without the checksum
	checkLen    = 8                   // characters
)

// checksum is the end of a secret, by which a token that was mistyped is told from one that isn't
// known. It is a part of the secret, so that releases without it take the token all the same.
func checksum(id, secret, authority string) string {
	sum := sha256.Sum256([]byte("sluice join token\x00" + id + "." + secret + "." + authority))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:5]))
}

func randomText(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, by its documentation
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))
}

// String is the token as it is handed over.
func (t Token) String() string {
	return strings.Join([]string{tokenPrefix, t.ID, t.Secret, t.Authority}, ".")
}

// Hash is what the fleet keeps of the token's secret.
func (t Token) Hash() string {
	sum := sha256.Sum256([]byte(t.ID + "." + t.Secret))
	return hex.EncodeToString(sum[:])
}

// ParseToken reads what String returned. Invalid: it is something else, or was mistyped. Tokens of
// releases without a checksum are taken unchecked.
func ParseToken(s string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(s), ".")
	if len(parts) != 4 || parts[0] != tokenPrefix || parts[1] == "" || parts[2] == "" ||
		parts[3] == "" {
		return Token{}, errs.New(errs.Invalid, "that is no join token").
			WithRemedy("make one on the server: sluice worker token create --name WORKER")
	}
	t := Token{ID: parts[1], Secret: parts[2], Authority: parts[3]}
	if len(t.Secret) == secretLen {
		return t, nil
	}
	if at := len(t.Secret) - checkLen; at != secretLen ||
		t.Secret[at:] != checksum(t.ID, t.Secret[:at], t.Authority) {
		return Token{}, errs.New(errs.Invalid,
			"the join token was cut or mistyped: its checksum is wrong").
			WithRemedy("copy it again, whole, from %s on", tokenPrefix)
	}
	return t, nil
}
