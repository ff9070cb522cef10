// Package serverlink is a worker's client of the control plane, over HTTP. The worker always dials.
//
// Invariants: each call is one request that is safe to repeat, and carries the worker token. An
// answer that isn't 2xx keeps the server's own kind and remedy. A call without answer is
// Unavailable.
// Nothing here retries: the worker's loops do, with backoff and jitter.
package serverlink

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	pollTimeout = 40 * time.Second // the server answers a poll within 25 s
	callTimeout = 10 * time.Second
	dialTimeout = 2 * time.Second
	keepAlive   = 5 * time.Second
	maxAnswer   = 64 << 20 // bytes
)

// Link is a client of the server. Safe for concurrent use. Close closes its idle connections.
type Link struct {
	base      string
	token     string
	transport *http.Transport
	http      *http.Client
}

var _ fleet.WorkerFeed = (*Link)(nil)

// New returns a link to the server at a URL. Invalid if it isn't one.
func New(server, token string) (*Link, error) {
	u, err := url.Parse(server)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, errs.New(errs.Invalid, "server URL %q is not an http URL", server).
			WithRemedy("use a form like http://[fd00::1]:7500")
	}
	t := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}).DialContext,
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     2 * time.Minute,
		DisableCompression:  true,
	}
	return &Link{base: strings.TrimSuffix(server, "/"), token: token, transport: t,
		http: &http.Client{Transport: t}}, nil
}

// Close closes idle connections.
func (l *Link) Close() { l.transport.CloseIdleConnections() }

// Join introduces the worker.
func (l *Link) Join(ctx context.Context, req fleet.JoinRequest) (fleet.JoinAnswer, error) {
	var a fleet.JoinAnswer
	err := l.post(ctx, "/internal/v1/join", req, &a)
	return a, err
}

// Assignments returns the worker's assignments once their revision differs from after.
func (l *Link) Assignments(ctx context.Context, worker fleet.WorkerID,
	after int64) (fleet.AssignmentSet, error) {
	var set fleet.AssignmentSet
	path := "/internal/v1/workers/" + url.PathEscape(string(worker)) + "/assignments?after=" +
		strconv.FormatInt(after, 10)
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	err := l.call(ctx, http.MethodGet, path, nil, &set)
	return set, err
}

// Report posts the worker's whole state.
func (l *Link) Report(ctx context.Context, report fleet.WorkerReport) error {
	path := "/internal/v1/workers/" + url.PathEscape(string(report.Worker)) + "/report"
	return l.post(ctx, path, report, nil)
}

// post sends in as JSON and reads the answer into out, which may be nil.
func (l *Link) post(ctx context.Context, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return l.call(ctx, http.MethodPost, path, in, out)
}

// call asks the server once. in and out may be nil.
func (l *Link) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return errs.Wrap(errs.Internal, err, "encode request to the server")
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, l.base+path, body)
	if err != nil {
		return errs.Wrap(errs.Internal, err, "ask the server")
	}
	req.Header.Set("Authorization", "Bearer "+l.token)
	req.Header.Set("Content-Type", "application/json")
	if in != nil {
		// All calls are safe to repeat: lets the transport do so on a connection that the server
		// has closed.
		req.Header["Idempotency-Key"] = nil
	}
	resp, err := l.http.Do(req)
	if err != nil {
		return errs.Wrap(errs.Unavailable, err,
			"ask the server").WithRemedy("check that the server runs at %s", l.base)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "read the server's answer")
	}
	if resp.StatusCode/100 != 2 {
		return refusal(resp.StatusCode, b)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return errs.Wrap(errs.Unavailable, err, "decode the server's answer")
	}
	return nil
}

func refusal(status int, b []byte) error {
	var e api.ErrorBody
	if json.Unmarshal(b, &e) == nil && e.Error.Code != "" {
		message := e.Error.Message
		if e.Error.Cause != "" {
			message += ": " + e.Error.Cause
		}
		out := errs.New(errs.Kind(e.Error.Code), "%s", message)
		if e.Error.Remedy != "" {
			out = out.WithRemedy("%s", e.Error.Remedy)
		}
		return out
	}
	return errs.New(errs.Unavailable, "the server answered with status %d", status)
}
