package client

import (
	"context"
	"io"
	"net/http"
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

// Authority returns who vouches for the parts of the fleet, and what clients are to trust.
func (c *Client) Authority(ctx context.Context) (api.Authority, error) {
	var a api.Authority
	err := c.get(ctx, pathOf("authority"), nil, &a)
	return a, err
}

// AuthorityPEM returns what clients are to trust, in PEM. Any client that knows the server gets it.
func (c *Client) AuthorityPEM(ctx context.Context) ([]byte, error) {
	req, err := c.newRequest(ctx, http.MethodGet, pathOf("authority.pem"), nil, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.send(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAuthority))
	if err != nil {
		return nil, c.transportError(ctx, err)
	}
	return text, nil
}

// maxAuthority bounds the certificates of a fleet's authority, in bytes.
const maxAuthority = 1 << 20

// RotateAuthority takes a step of a rotation: begin, switch, finish or abort.
func (c *Client) RotateAuthority(ctx context.Context, step string,
	force bool) (api.Authority, error) {
	var a api.Authority
	err := c.post(ctx, pathOf("authority", "rotate"),
		api.RotateAuthority{Step: step, Force: force}, &a)
	return a, err
}

// RevokeWorker shuts a worker out of the fleet, at once.
func (c *Client) RevokeWorker(ctx context.Context, id, reason string) (api.RevokedWorker, error) {
	var w api.RevokedWorker
	err := c.post(ctx, pathOf("workers", id, "revoke"), api.Cordon{Reason: reason}, &w)
	return w, err
}
