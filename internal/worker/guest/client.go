// Package guest talks to platformd in a VM over the VM's control stream.
//
// Invariants: every call carries the VM's control token; a call that can't reach the platform is
// Unavailable, and an answer that refuses keeps the platform's own kind and remedy. Nothing here
// retries, except Follow, which reconnects for as long as its context lives.
package guest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Dialer opens a VM's control stream. runtime.VM is one.
type Dialer interface {
	Dial(ctx context.Context) (net.Conn, error)
}

const (
	baseURL       = "http://vm"
	maxAnswer     = 1 << 20 // bytes of one JSON answer, or of one event
	idleConns     = 8       // per VM
	idleTimeout   = 30 * time.Second
	reconnectMin  = 5 * time.Millisecond
	reconnectMax  = time.Second
	contentType   = "application/json"
	bearerPrefix  = "Bearer "
	headerAuth    = "Authorization"
	headerContent = "Content-Type"
)

// Client is a client of the platform of one VM. Safe for concurrent use. Close closes its idle
// connections.
type Client struct {
	token     string
	transport *http.Transport
	http      *http.Client
}

// New returns a client that dials vm and shows token.
func New(vm Dialer, token string) *Client {
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn,
			error) {
			return vm.Dial(ctx)
		},
		MaxIdleConnsPerHost: idleConns,
		IdleConnTimeout:     idleTimeout,
		DisableCompression:  true,
	}
	return &Client{token: token, transport: t, http: &http.Client{Transport: t}}
}

// Close closes idle connections; calls under way go on.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Token returns the VM's control token.
func (c *Client) Token() string { return c.token }

// Transport returns a transport that sends requests to the VM, whatever host they name. It adds no
// token.
func (c *Client) Transport() http.RoundTripper { return c.transport }

// Health returns the platform's state.
func (c *Client) Health(ctx context.Context) (guestapi.Health, error) {
	var h guestapi.Health
	return h, c.call(ctx, http.MethodGet, guestapi.PathHealth, nil, &h)
}

// Alive returns nil once the platform answers in any way; Unavailable if it doesn't. A refusal
// counts as an answer, because an older platform doesn't know the path.
func (c *Client) Alive(ctx context.Context) error {
	err := c.call(ctx, http.MethodGet, guestapi.PathAlive, nil, nil)
	if errs.Is(err, errs.Unavailable) {
		return err
	}
	return nil // any answer will do
}

// Prepare warms an empty VM for a machine's disk. Idempotent.
func (c *Client) Prepare(ctx context.Context, p guestapi.Prepare) (guestapi.Health, error) {
	var h guestapi.Health
	return h, c.call(ctx, http.MethodPost, guestapi.PathPrepare, p, &h)
}

// Bind makes the VM a machine. It returns once the platform has accepted.
func (c *Client) Bind(ctx context.Context, b guestapi.Bind) (guestapi.Health, error) {
	var h guestapi.Health
	return h, c.call(ctx, http.MethodPost, guestapi.PathBind, b, &h)
}

// ReleaseMachine has the machine stopped. It returns once its disk is closed, with the platform's
// last state.
func (c *Client) ReleaseMachine(ctx context.Context,
	r guestapi.ReleaseMachine) (guestapi.Health, error) {
	var h guestapi.Health
	return h, c.call(ctx, http.MethodPost, guestapi.PathReleaseMachine, r, &h)
}

// Follow calls yield with the platform's state, now and after each change, until ctx ends. It
// reconnects when the stream breaks.
func (c *Client) Follow(ctx context.Context, yield func(guestapi.Health)) {
	wait := backoff.New(reconnectMin, reconnectMax)
	for {
		began := time.Now()
		c.stream(ctx, yield)
		// the stream had worked, and a restarted platform is back soon
		if time.Since(began) >= reconnectMax {
			wait.Reset()
		}
		if backoff.Sleep(ctx, wait.Next()) != nil {
			return
		}
	}
}

// stream reads events, one to a line, until the stream ends or one isn't what it should be. It
// returns no error: whatever the reason, the cure is to connect again.
func (c *Client) stream(ctx context.Context, yield func(guestapi.Health)) {
	resp, err := c.do(ctx, http.MethodGet, guestapi.PathEvents, nil)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	events := bufio.NewScanner(resp.Body)
	events.Buffer(nil, maxAnswer)
	for events.Scan() {
		var h guestapi.Health
		if json.Unmarshal(events.Bytes(), &h) != nil {
			return
		}
		yield(h)
	}
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.do(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "read the platform's answer to %s", path)
	}
	if out == nil || len(body) == 0 {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return errs.Wrap(errs.Internal, err, "decode the platform's answer to %s", path)
	}
	return nil
}

// do sends a request and returns a 2xx answer, or an error of the kind that the platform gave.
func (c *Client) do(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, errs.Wrap(errs.Internal, err, "encode request to %s", path)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, baseURL+path, body)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "ask the platform for %s", path)
	}
	req.Header.Set(headerAuth, bearerPrefix+c.token)
	req.Header.Set(headerContent, contentType)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err, "ask the platform for %s", path)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, refusal(resp, path)
}

// refusal turns an answer that isn't 2xx into an error.
func refusal(resp *http.Response, path string) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "read the platform's refusal of %s", path)
	}
	var e errs.Wire
	if json.Unmarshal(b, &e) != nil || e.Kind == "" {
		kind := errs.Internal
		if resp.StatusCode >= http.StatusInternalServerError {
			kind = errs.Unavailable
		}
		return errs.New(kind, "the platform answered %s with status %d", path, resp.StatusCode)
	}
	return e.Err()
}
