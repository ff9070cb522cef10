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
	return Token{ID: randomText(5), Secret: randomText(20), Authority: authority}
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

// ParseToken reads what String returned. Invalid: it is something else.
func ParseToken(s string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(s), ".")
	if len(parts) != 4 || parts[0] != tokenPrefix || parts[1] == "" || parts[2] == "" ||
		parts[3] == "" {
		return Token{}, errs.New(errs.Invalid, "that is no join token").
			WithRemedy("make one on the server: sluice worker token create --name WORKER")
	}
	return Token{ID: parts[1], Secret: parts[2], Authority: parts[3]}, nil
}
