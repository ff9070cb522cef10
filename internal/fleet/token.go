package fleet

import (
	"context"
	"time"
)

// TokenID names a token of a person or program. It is no secret.
type TokenID string

// Grant is what a token lets its holder do, and where: the verbs are those of internal/authz, and
// "" for network or app means all.
type Grant struct {
	Network NetworkName `json:"network,omitempty"`
	App     AppName     `json:"app,omitempty"`
	Verb    string      `json:"verb"`
}

// String is the grant as people write it: VERB[@NETWORK[/APP]], or VERB@/APP.
func (g Grant) String() string {
	text := g.Verb
	if g.Network != "" || g.App != "" {
		text += "@" + string(g.Network)
	}
	if g.App != "" {
		text += "/" + string(g.App)
	}
	return text
}

// Token is the record of a token. The secret itself is nowhere.
type Token struct {
	ID        TokenID   `json:"id"`
	Name      string    `json:"name"`
	Hash      []byte    `json:"hash"` // SHA-256 of the secret
	Grants    []Grant   `json:"grants"`
	CreatedAt time.Time `json:"created_at"`
	CreatedBy string    `json:"created_by"`
	ExpiresAt time.Time `json:"expires_at,omitzero"` // zero: never
	RevokedAt time.Time `json:"revoked_at,omitzero"`
	RevokedBy string    `json:"revoked_by,omitempty"`
	// LastUsedAt is written about once a minute.
	LastUsedAt time.Time `json:"last_used_at,omitzero"`
}

// TokenState is whether a token counts.
type TokenState string

// States of tokens.
const (
	TokenLive    TokenState = "live"
	TokenExpired TokenState = "expired"
	TokenRevoked TokenState = "revoked"
)

// StateAt returns whether the token counts at a time.
func (t Token) StateAt(now time.Time) TokenState {
	switch {
	case !t.RevokedAt.IsZero():
		return TokenRevoked
	case !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt):
		return TokenExpired
	}
	return TokenLive
}

// EndedAt returns when the token stopped counting, or will; zero: never.
func (t Token) EndedAt() time.Time {
	if t.RevokedAt.IsZero() || !t.ExpiresAt.IsZero() && t.ExpiresAt.Before(t.RevokedAt) {
		return t.ExpiresAt
	}
	return t.RevokedAt
}

// Tokens keeps the tokens of people and programs.
type Tokens interface {
	// Token returns a token from memory: it is asked for each request. NotFound: there is none;
	// Unavailable: nobody knows yet.
	Token(id TokenID) (Token, error)
	// Tokens returns all, ordered by id. Those that ended long ago are forgotten.
	Tokens(ctx context.Context) ([]Token, error)
	CreateToken(ctx context.Context, t Token) error
	// RevokeToken ends a token for good, from now on. One that is revoked stays as it is.
	RevokeToken(ctx context.Context, id TokenID, by string) (Token, error)
	// UseTokens notes when tokens were last used. Those that are gone are left out.
	UseTokens(ctx context.Context, used map[TokenID]time.Time) error
}
