package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/sluice-platform/sluice/api"
)

// maxEvent bounds one event of a watch: a drain with all of its moves.
const maxEvent = 64 << 20

// WatchDrain calls yield with a drain's state, now and at each change. It returns nil after the
// final state, or once yield returns false. It reconnects when the connection is lost.
func (c *Client) WatchDrain(ctx context.Context, id string, yield func(api.Drain) bool) error {
	for {
		over, err := c.watchOnce(ctx, id, yield)
		if over || (err != nil && !IsCode(err, codeUnavailable)) {
			return err
		}
		if err := pause(ctx, retryPause); err != nil {
			return err
		}
	}
}

// watchOnce reads one connection's events; over: the drain has ended, or yield has.
func (c *Client) watchOnce(ctx context.Context, id string,
	yield func(api.Drain) bool) (over bool, err error) {
	req, err := c.newRequest(ctx, http.MethodGet, pathOf("drains", id, "watch"), nil, nil)
	if err != nil {
		return true, err
	}
	resp, err := c.send(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok {
			continue
		}
		var d api.Drain
		if err := json.Unmarshal(data, &d); err != nil {
			return true, &api.Error{Code: codeInternal,
				Message: "an event of the watch is no drain", Cause: err.Error(), Err: err}
		}
		if !yield(d) || DrainEnded(d) {
			return true, nil
		}
	}
	return false, ctx.Err()
}

func decodeInto(ctx context.Context, body io.Reader, out any) error {
	if err := json.NewDecoder(body).Decode(out); err != nil {
		if cause := ctx.Err(); cause != nil {
			return cause
		}
		return &api.Error{Code: codeUnavailable,
			Message: "the server's answer broke off or is no JSON", Cause: err.Error(), Err: err}
	}
	return nil
}
