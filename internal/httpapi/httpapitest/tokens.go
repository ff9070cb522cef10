package httpapitest

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// Token implements fleet.Tokens.
func (f *Fleet) Token(id fleet.TokenID) (fleet.Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t, ok := f.tokens[id]; ok {
		return t, f.fail
	}
	return fleet.Token{}, fleet.NoToken(string(id))
}

// Tokens implements fleet.Tokens.
func (f *Fleet) Tokens(context.Context) ([]fleet.Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []fleet.Token
	for _, t := range f.tokens {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b fleet.Token) int { return cmp.Compare(a.ID, b.ID) })
	return out, f.fail
}

// CreateToken implements fleet.Tokens.
func (f *Fleet) CreateToken(_ context.Context, t fleet.Token) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	f.tokens[t.ID] = t
	f.mutatedLocked()
	return nil
}

// RevokeToken implements fleet.Tokens.
func (f *Fleet) RevokeToken(_ context.Context, id fleet.TokenID, by string) (fleet.Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, ok := f.tokens[id]
	if !ok {
		return fleet.Token{}, fleet.NoToken(string(id))
	}
	if t.RevokedAt.IsZero() {
		t.RevokedAt, t.RevokedBy = time.Now(), by
		f.tokens[id] = t
		f.mutatedLocked()
	}
	return t, nil
}

// UseTokens implements fleet.Tokens.
func (f *Fleet) UseTokens(_ context.Context, used map[fleet.TokenID]time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, at := range used {
		if t, ok := f.tokens[id]; ok {
			t.LastUsedAt = at
			f.tokens[id] = t
		}
	}
	return f.fail
}
