package client

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/sluice-platform/sluice/api"
)

// Quotas returns the quotas, and what is used, of all that the caller may see, by id.
func (c *Client) Quotas(ctx context.Context) ([]api.Quota, error) {
	return listAll[api.Quota](ctx, c, pathOf("quotas"), nil)
}

// Quota returns one; id is as in network/NETWORK, network/NETWORK/APP, default or fleet.
func (c *Client) Quota(ctx context.Context, id string) (api.Quota, error) {
	var q api.Quota
	err := c.get(ctx, quotaPath(id), nil, &q)
	return q, err
}

// SetQuota changes some limits of a quota; nil takes one away.
func (c *Client) SetQuota(ctx context.Context, id string,
	limits map[string]*int64) (api.Quota, error) {
	var q api.Quota
	data, err := json.Marshal(api.SetQuota{Limits: limits})
	if err != nil {
		return q, &api.Error{Code: codeInvalid, Message: "the request can't be encoded",
			Cause: err.Error(), Err: err}
	}
	req, err := c.newRequest(ctx, http.MethodPatch, quotaPath(id), nil, bytes.NewReader(data))
	if err != nil {
		return q, err
	}
	req.Header.Set("Content-Type", "application/json")
	err = c.call(ctx, req, &q)
	return q, err
}

// ClearQuota takes all limits of a quota away.
func (c *Client) ClearQuota(ctx context.Context, id string) error {
	return c.delete(ctx, quotaPath(id))
}

func quotaPath(id string) string {
	return pathOf("quotas", strings.ReplaceAll(id, "/", "~"))
}
