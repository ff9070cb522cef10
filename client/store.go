package client

import (
	"context"

	"github.com/sluice-platform/sluice/api"
)

// StoreCredentials returns which credentials of the store the fleet uses, without a secret.
func (c *Client) StoreCredentials(ctx context.Context) (api.StoreCredentials, error) {
	var s api.StoreCredentials
	err := c.get(ctx, pathOf("store", "credentials"), nil, &s)
	return s, err
}
