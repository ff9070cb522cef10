package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"

	"github.com/sluice-platform/sluice/api"
)

// Server describes the server and its fleet.
func (c *Client) Server(ctx context.Context) (api.Server, error) {
	var s api.Server
	err := c.get(ctx, pathOf("server"), nil, &s)
	return s, err
}

// Workers returns all workers, by name.
func (c *Client) Workers(ctx context.Context) ([]api.Worker, error) {
	return listAll[api.Worker](ctx, c, pathOf("workers"), nil)
}

// Worker returns one worker.
func (c *Client) Worker(ctx context.Context, id string) (api.Worker, error) {
	var w api.Worker
	err := c.get(ctx, pathOf("workers", id), nil, &w)
	return w, err
}

// Cordon stops a worker from getting more machines.
func (c *Client) Cordon(ctx context.Context, id, reason string) (api.Worker, error) {
	var w api.Worker
	err := c.post(ctx, pathOf("workers", id, "cordon"), api.Cordon{Reason: reason}, &w)
	return w, err
}

// Uncordon lets a worker take machines again.
func (c *Client) Uncordon(ctx context.Context, id string) (api.Worker, error) {
	var w api.Worker
	err := c.post(ctx, pathOf("workers", id, "uncordon"), nil, &w)
	return w, err
}

// StartDrain begins to empty workers.
func (c *Client) StartDrain(ctx context.Context, workers ...string) (api.Drain, error) {
	var d api.Drain
	err := c.post(ctx, pathOf("drains"), api.CreateDrain{Workers: workers}, &d)
	return d, err
}

// Drains returns all drains, oldest first.
func (c *Client) Drains(ctx context.Context) ([]api.Drain, error) {
	return listAll[api.Drain](ctx, c, pathOf("drains"), nil)
}

// Drain returns one drain with its moves.
func (c *Client) Drain(ctx context.Context, id string) (api.Drain, error) {
	var d api.Drain
	err := c.get(ctx, pathOf("drains", id), nil, &d)
	return d, err
}

// CancelDrain cancels a drain. Moves before their point of no return are undone, others finish.
func (c *Client) CancelDrain(ctx context.Context, id string) (api.Drain, error) {
	var d api.Drain
	err := c.post(ctx, pathOf("drains", id, "cancel"), nil, &d)
	return d, err
}

// Move returns one move.
func (c *Client) Move(ctx context.Context, id string) (api.Move, error) {
	var m api.Move
	err := c.get(ctx, pathOf("moves", id), nil, &m)
	return m, err
}

// WaitMove returns a move once it has ended. It waits until ctx ends, and reconnects.
func (c *Client) WaitMove(ctx context.Context, id string) (api.Move, error) {
	return waitFor(ctx, func() (api.Move, error) {
		var m api.Move
		err := c.get(ctx, pathOf("moves", id), url.Values{"wait": {"done"}}, &m)
		return m, err
	}, MoveEnded)
}

// MoveEnded reports whether a move has reached its last step.
func MoveEnded(m api.Move) bool { return m.Step == "done" || m.Step == "undone" }

// DrainEnded reports whether a drain is over, drained or cancelled.
func DrainEnded(d api.Drain) bool { return d.State == "drained" || d.State == "cancelled" }

// Images returns all images, by name.
func (c *Client) Images(ctx context.Context) ([]api.Image, error) {
	return listAll[api.Image](ctx, c, pathOf("images"), nil)
}

// CreateImage builds an image of sizeBytes from a tar archive, which it streams once the server has
// accepted the request. If reading tar fails, the upload fails, and no image is made.
func (c *Client) CreateImage(ctx context.Context, name string, sizeBytes int64,
	tar io.Reader) (api.Image, error) {
	q := url.Values{"size_bytes": {strconv.FormatInt(sizeBytes, 10)}}
	var image api.Image
	source := &sourceReader{r: tar}
	req, err := c.newRequest(ctx, http.MethodPut, pathOf("images", name), q, io.NopCloser(source))
	if err != nil {
		return image, err
	}
	req.Header.Set("Content-Type", "application/x-tar")
	req.Header.Set("Expect", "100-continue")
	resp, err := c.send(req)
	if broken := source.broken(); broken != nil {
		err = &api.Error{Code: codeInvalid,
			Message: "the tar archive for image " + quote(name) + " can't be read",
			Cause:   broken.Error(), Err: broken}
	}
	if err != nil {
		return image, err
	}
	defer resp.Body.Close()
	err = decodeInto(ctx, resp.Body, &image)
	return image, err
}

// sourceReader records the error of reading, so that a broken archive isn't reported as a lost
// connection.
type sourceReader struct {
	r io.Reader

	mu  sync.Mutex
	err error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
	}
	return n, err
}

func (s *sourceReader) broken() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
