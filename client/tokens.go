package client

import (
	"context"
	"net/http"

	"github.com/sluice-platform/sluice/api"
)

// SignIn returns how people sign in to the fleet. It needs no token. IsCode not_found: nobody does.
func (c *Client) SignIn(ctx context.Context) (api.SignIn, error) {
	var s api.SignIn
	err := c.get(ctx, pathOf("signin"), nil, &s)
	return s, err
}

// WhoAmI returns how the server knows the caller.
func (c *Client) WhoAmI(ctx context.Context) (api.Caller, error) {
	var me api.Caller
	err := c.get(ctx, pathOf("whoami"), nil, &me)
	return me, err
}

// CreateToken makes a token. Its text is in the answer, and nowhere else.
func (c *Client) CreateToken(ctx context.Context, req api.CreateToken) (api.Token, error) {
	var t api.Token
	err := c.post(ctx, pathOf("tokens"), req, &t)
	return t, err
}

// Tokens returns the tokens that the caller may know of, by id.
func (c *Client) Tokens(ctx context.Context) ([]api.Token, error) {
	return listAll[api.Token](ctx, c, pathOf("tokens"), nil)
}

// Token returns one token, by its id or exact name.
func (c *Client) Token(ctx context.Context, ref string) (api.Token, error) {
	var t api.Token
	err := c.get(ctx, pathOf("tokens", ref), nil, &t)
	return t, err
}

// RevokeToken ends a token for good, by its id or exact name. What runs on it ends within seconds.
func (c *Client) RevokeToken(ctx context.Context, ref string) (api.Token, error) {
	var t api.Token
	req, err := c.newRequest(ctx, http.MethodDelete, pathOf("tokens", ref), nil, nil)
	if err != nil {
		return t, err
	}
	err = c.call(ctx, req, &t)
	return t, err
}
