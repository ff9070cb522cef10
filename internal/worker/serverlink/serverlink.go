// Package serverlink is a worker's client of the control plane, over HTTP. The worker always dials.
//
// Invariants: each call is one request that is safe to repeat, over a connection that shows the
// worker's certificate. An
// answer that isn't 2xx keeps the server's own kind and remedy. A call without answer is
// Unavailable.
// Nothing here retries: the worker's loops do, with backoff and jitter.
package serverlink

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/identity"
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
	base string
	tls  *tls.Config
	http atomic.Pointer[http.Transport]
}

var _ fleet.WorkerFeed = (*Link)(nil)

// New returns a link to the server at a URL, which cfg knows. Invalid if it isn't an https URL.
func New(server string, cfg *tls.Config) (*Link, error) {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, errs.New(errs.Invalid, "server URL %q is not an https URL", server).
			WithRemedy("use a form like https://[fd00::1]:7500")
	}
	l := &Link{base: strings.TrimSuffix(server, "/"), tls: cfg}
	l.http.Store(l.newTransport())
	return l, nil
}

func (l *Link) newTransport() *http.Transport {
	cfg := l.tls.Clone()
	// A session that is resumed shows the server's certificate of before.
	cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	return &http.Transport{
		DialContext:         (&net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}).DialContext,
		TLSClientConfig:     cfg,
		TLSHandshakeTimeout: callTimeout,
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     2 * time.Minute,
		DisableCompression:  true,
	}
}

// Close closes idle connections.
func (l *Link) Close() { l.http.Load().CloseIdleConnections() }

// Redial makes calls from now on use new connections. The old ones are closed once the calls that
// are under way on them have ended.
func (l *Link) Redial() { l.http.Swap(l.newTransport()).CloseIdleConnections() }

// Enroll asks for the worker's first certificate, by a join token.
func (l *Link) Enroll(ctx context.Context, req fleet.EnrollRequest) (identity.Answer, error) {
	var a fleet.EnrollAnswer
	err := l.post(ctx, "/internal/v1/enroll", req, &a)
	return identity.Answer{Certificate: []byte(a.Certificate), Authority: []byte(a.Authority)}, err
}

// Renew asks for a certificate in place of the one that the connection shows.
func (l *Link) Renew(ctx context.Context, worker fleet.WorkerID,
	request []byte) (identity.Answer, error) {
	var a fleet.EnrollAnswer
	path := "/internal/v1/workers/" + url.PathEscape(string(worker)) + "/renew"
	err := l.post(ctx, path, fleet.RenewRequest{Request: string(request)}, &a)
	return identity.Answer{Certificate: []byte(a.Certificate), Authority: []byte(a.Authority)}, err
}

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
	err := l.poll(ctx, worker, "assignments?after=", after, &set)
	return set, err
}

// StoreCredentials returns what the worker may use of the fleet's store, once the generation
// differs from have.
func (l *Link) StoreCredentials(ctx context.Context, worker fleet.WorkerID,
	have int64) (fleet.StoreCredentials, error) {
	var c fleet.StoreCredentials
	err := l.poll(ctx, worker, "store-credentials?have=", have, &c)
	return c, err
}

// poll reads into out what the server has of a worker, once that is another than known.
func (l *Link) poll(ctx context.Context, worker fleet.WorkerID, what string, known int64,
	out any) error {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	path := "/internal/v1/workers/" + url.PathEscape(string(worker)) + "/" + what +
		strconv.FormatInt(known, 10)
	return l.call(ctx, http.MethodGet, path, nil, out)
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
	req.Header.Set("Date", time.Now().UTC().Format(http.TimeFormat)) // clocks may differ
	req.Header.Set("Content-Type", "application/json")
	if in != nil {
		// All calls are safe to repeat: lets the transport do so on a connection that the server
		// has closed.
		req.Header["Idempotency-Key"] = nil
	}
	resp, err := (&http.Client{Transport: l.http.Load()}).Do(req)
	if err != nil {
		var known *errs.Error // what answers is not the server
		if errors.As(err, &known) {
			return errs.Wrap(known.Kind, err, "ask the server at %s", l.base)
		}
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
