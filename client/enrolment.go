package client

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/api"
)

// CreateJoinToken makes a token by which a worker of that name can join, once, within ttl.
func (c *Client) CreateJoinToken(ctx context.Context, worker string,
	ttl time.Duration) (api.JoinToken, error) {
	var t api.JoinToken
	err := c.post(ctx, pathOf("worker-tokens"),
		api.CreateJoinToken{Worker: worker, TTLSeconds: int64(ttl / time.Second)}, &t)
	return t, err
}

// JoinTokens returns the tokens that can be used, and those of the last day, oldest first.
func (c *Client) JoinTokens(ctx context.Context) ([]api.JoinToken, error) {
	return listAll[api.JoinToken](ctx, c, pathOf("worker-tokens"), nil)
}

// DeleteJoinToken makes a token worthless. A certificate that was got by it stays.
func (c *Client) DeleteJoinToken(ctx context.Context, id string) error {
	return c.delete(ctx, pathOf("worker-tokens", id))
}

// RevokeWorker shuts a worker out of the fleet, at once.
func (c *Client) RevokeWorker(ctx context.Context, id, reason string) (api.RevokedWorker, error) {
	var w api.RevokedWorker
	err := c.post(ctx, pathOf("workers", id, "revoke"), api.Cordon{Reason: reason}, &w)
	return w, err
}
