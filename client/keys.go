package client

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"

	"github.com/sluice-platform/sluice/api"
)

// Networks returns all networks, by name.
func (c *Client) Networks(ctx context.Context) ([]api.Network, error) {
	return listAll[api.Network](ctx, c, pathOf("networks"), nil)
}

// RekeyNetwork makes a new key for a network, unless its disks are being changed to one already. It
// returns before they are changed; see Networks.
func (c *Client) RekeyNetwork(ctx context.Context, name string) (api.Network, error) {
	var n api.Network
	err := c.post(ctx, pathOf("networks", name, "rekey"), nil, &n)
	return n, err
}

// MachineDiskKey returns the key of a machine's disk. The machine's history tells of it.
func (c *Client) MachineDiskKey(ctx context.Context, ref string) (api.DiskKey, error) {
	var k api.DiskKey
	err := c.post(ctx, machinePath(ref, "disk-key"), nil, &k)
	return k, err
}

// Secrets returns an app's secrets, by name, without their values.
func (c *Client) Secrets(ctx context.Context, network, app string) ([]api.Secret, error) {
	return listAll[api.Secret](ctx, c, pathOf("networks", network, "apps", app, "secrets"), nil)
}

// SetSecret sets an app's secret. Machines get it when they are started next.
func (c *Client) SetSecret(ctx context.Context, network, app, name,
	value string) (api.Secret, error) {
	var s api.Secret
	data, err := json.Marshal(api.SetSecret{Value: value})
	if err != nil {
		return s, &api.Error{Code: codeInvalid, Message: "the request can't be encoded",
			Cause: err.Error(), Err: err}
	}
	path := pathOf("networks", network, "apps", app, "secrets", name)
	req, err := c.newRequest(ctx, http.MethodPut, path, nil, bytes.NewReader(data))
	if err != nil {
		return s, err
	}
	req.Header.Set("Content-Type", "application/json")
	err = c.call(ctx, req, &s)
	return s, err
}

// UnsetSecret removes an app's secret.
func (c *Client) UnsetSecret(ctx context.Context, network, app, name string) error {
	return c.delete(ctx, pathOf("networks", network, "apps", app, "secrets", name))
}
