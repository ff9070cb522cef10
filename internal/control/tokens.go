package control

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/control/records"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Bounds of what is kept about tokens.
const (
	keepEndedTokens = 30 * 24 * time.Hour // a person may still ask why a token doesn't count
	maxTokens       = 10000
	tokensPerTxn    = 50
)

// Token implements fleet.Tokens.
func (c *Control) Token(id fleet.TokenID) (fleet.Token, error) {
	if err := c.ready(); err != nil {
		return fleet.Token{}, err
	}
	t, ok := c.records.Tokens.Get(id)
	if !ok {
		return fleet.Token{}, fleet.NoToken(string(id))
	}
	return t.Val, nil
}

// Tokens implements fleet.Tokens.
func (c *Control) Tokens(context.Context) ([]fleet.Token, error) {
	if err := c.ready(); err != nil {
		return nil, err
	}
	var all []fleet.Token
	for _, t := range c.records.Tokens.All() {
		all = append(all, t.Val)
	}
	return all, nil
}

// CreateToken implements fleet.Tokens. Tokens that ended long ago go with it.
func (c *Control) CreateToken(ctx context.Context, token fleet.Token) error {
	if err := c.ready(); err != nil {
		return err
	}
	return c.try(ctx, func() error {
		t := c.records.Begin()
		live := 0
		for _, old := range c.records.Tokens.All() {
			end := old.Val.EndedAt()
			if !end.IsZero() && end.Before(c.now().Add(-keepEndedTokens)) &&
				t.Len() < tokensPerTxn {
				records.Delete(t, old)
				continue
			}
			live++
		}
		if live >= maxTokens {
			return errs.New(errs.Exhausted, "the fleet has %d tokens, which is the bound", live).
				WithRemedy("revoke those that nobody uses; ended ones go after %d days",
					int(keepEndedTokens.Hours()/24))
		}
		records.Set(t, c.records.Tokens.New(token.ID), token)
		return t.Commit(ctx)
	})
}

// RevokeToken implements fleet.Tokens.
func (c *Control) RevokeToken(ctx context.Context, id fleet.TokenID,
	by string) (fleet.Token, error) {
	var revoked fleet.Token
	if err := c.ready(); err != nil {
		return revoked, err
	}
	err := c.try(ctx, func() error {
		row, ok := c.records.Tokens.Get(id)
		if !ok {
			return fleet.NoToken(string(id))
		}
		revoked = row.Val
		if !revoked.RevokedAt.IsZero() {
			return nil
		}
		revoked.RevokedAt, revoked.RevokedBy = c.now(), by
		t := c.records.Begin()
		records.Set(t, row, revoked)
		return t.Commit(ctx)
	})
	return revoked, err
}

// UseTokens implements fleet.Tokens.
func (c *Control) UseTokens(ctx context.Context, used map[fleet.TokenID]time.Time) error {
	for id, at := range used {
		err := c.try(ctx, func() error {
			row, ok := c.records.Tokens.Get(id)
			if !ok || !at.After(row.Val.LastUsedAt) {
				return nil
			}
			next := row.Val
			next.LastUsedAt = at
			t := c.records.Begin()
			records.Set(t, row, next)
			return t.Commit(ctx)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
