package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/sluice-platform/sluice/api"
)

// Client calls one fleet's API.
type Client struct {
	base  *url.URL
	token func(context.Context) (string, error)
	http  *http.Client
}

// Option changes a new client.
type Option func(*options)

type options struct {
	ca    []byte
	token func(context.Context) (string, error)
}

// WithTokens makes the client ask for the token of each request, for one that is renewed.
func WithTokens(token func(context.Context) (string, error)) Option {
	return func(o *options) { o.token = token }
}

// WithCA makes the client take the server of one fleet and nobody else: by the fleet's authority,
// in PEM, and by the server's name in its certificate. Its host name doesn't matter. Without it the
// client takes whom this host's authorities vouch for.
func WithCA(pem []byte) Option { return func(o *options) { o.ca = pem } }

// New returns a client of the server at baseURL (https://host:port), with an operator token. Plain
// http is taken for this host's own addresses only, as the token would be readable on the way.
func New(baseURL, token string, more ...Option) (*Client, error) {
	u, err := url.Parse(strings.TrimRight(baseURL, "/"))
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, &api.Error{Code: codeInvalid,
			Message: "server URL " + quote(baseURL) + " is not like https://127.0.0.1:7500",
			Remedy:  "set SLUICE_URL to the address at which the server listens", Err: err}
	}
	if u.Scheme == "http" && !isLoopback(u.Hostname()) {
		return nil, &api.Error{Code: codeInvalid,
			Message: "with server URL " + quote(baseURL) +
				" the token would go over the network in clear",
			Remedy: "use https:// in SLUICE_URL"}
	}
	if token = strings.TrimSpace(token); strings.ContainsFunc(token, unicode.IsSpace) {
		return nil, &api.Error{Code: codeInvalid,
			Message: "the token has more than one line or word",
			Remedy:  "give one token: of a file with several, such as the server's, one line"}
	}
	var o options
	for _, change := range more {
		change(&o)
	}
	trust, err := trusting(o.ca)
	if err != nil {
		return nil, err
	}
	if o.token == nil {
		o.token = func(context.Context) (string, error) { return token, nil }
	}
	return &Client{base: u, token: o.token, http: &http.Client{Transport: upgrading{&http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{Timeout: 5 * time.Second,
			KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:       trust,
		TLSHandshakeTimeout:   10 * time.Second,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       time.Minute,
		ExpectContinueTimeout: 30 * time.Second, // an upload waits to be asked for its body
	}}}}, nil
}

// BaseURL returns where the server is.
func (c *Client) BaseURL() string { return c.base.String() }

// Codes of errors that the client itself makes.
const (
	codeInvalid     = "invalid"
	codeUnavailable = "unavailable"
	codeInternal    = "internal"
)

// IsCode reports whether err is an *api.Error with the given code, as in "not_found".
func IsCode(err error, code string) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Code == code
}

func quote(s string) string { return `"` + s + `"` }

// pathOf joins path elements, escaped. A reference to a machine of an app, app/name, becomes
// app~name.
func pathOf(elements ...string) string {
	escaped := make([]string, 0, len(elements))
	for _, e := range elements {
		escaped = append(escaped, url.PathEscape(e))
	}
	return "/v1/" + strings.Join(escaped, "/")
}

func machinePath(ref string, more ...string) string {
	return pathOf(append([]string{"machines", strings.Replace(ref, "/", "~", 1)}, more...)...)
}

// newRequest makes a request for an escaped path.
func (c *Client) newRequest(ctx context.Context, method, path string, q url.Values,
	body io.Reader) (*http.Request, error) {
	target := c.base.String() + path
	if len(q) > 0 {
		target += "?" + q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, &api.Error{Code: codeInvalid, Message: "request for " + path + " can't be made",
			Cause: err.Error(), Err: err}
	}
	token, err := c.token(ctx)
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return req, nil
}

// send sends a request and returns an answer that is 2xx; the caller closes its body.
func (c *Client) send(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.transportError(req.Context(), err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, errorOf(resp)
}

// transportError returns the error of a request without an answer.
func (c *Client) transportError(ctx context.Context, err error) error {
	if cause := ctx.Err(); cause != nil {
		return cause
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if e := certificateError(c.base.String(), err); e != nil {
		return e
	}
	return &api.Error{Code: codeUnavailable,
		Message: "the server at " + c.base.String() + " gave no answer",
		Cause:   err.Error(),
		Remedy:  "check that it runs and that SLUICE_URL or SLUICE_DIR names it: sluice doctor",
		Err:     err}
}

const maxErrorBody = 64 << 10

// errorOf returns the *api.Error of an answer that isn't 2xx.
func errorOf(resp *http.Response) error {
	data, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	var body api.ErrorBody
	if err := json.Unmarshal(data, &body); err == nil && body.Error.Code != "" {
		return &body.Error
	}
	e := &api.Error{Code: codeOfStatus(resp.StatusCode),
		Message: "the server answered " + resp.Status,
		Cause:   strings.TrimSpace(string(data[:min(len(data), 200)]))}
	if strings.Contains(e.Cause, "HTTP request to an HTTPS server") {
		e.Remedy = "use https:// in SLUICE_URL"
	}
	if e.Code == codeInternal {
		e.Remedy = "is SLUICE_URL the address of a Sluice server?"
	}
	return e
}

// codeOfStatus returns a code for answers that aren't the server's, such as a load balancer's.
func codeOfStatus(status int) string {
	switch status {
	case http.StatusBadRequest:
		return codeInvalid
	case http.StatusUnauthorized, http.StatusForbidden:
		return "denied"
	case http.StatusNotFound:
		return "not_found"
	case http.StatusConflict:
		return "conflict"
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout,
		http.StatusTooManyRequests:
		return codeUnavailable
	default:
		return codeInternal
	}
}

// get reads the JSON document at a path into out.
func (c *Client) get(ctx context.Context, path string, q url.Values, out any) error {
	req, err := c.newRequest(ctx, http.MethodGet, path, q, nil)
	if err != nil {
		return err
	}
	return c.call(ctx, req, out)
}

// post sends in as JSON, and reads the answer into out. Both may be nil.
func (c *Client) post(ctx context.Context, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return &api.Error{Code: codeInvalid, Message: "the request can't be encoded",
				Cause: err.Error(), Err: err}
		}
		body = bytes.NewReader(data)
	}
	req, err := c.newRequest(ctx, http.MethodPost, path, nil, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return c.call(ctx, req, out)
}

// delete removes what is at a path.
func (c *Client) delete(ctx context.Context, path string) error {
	req, err := c.newRequest(ctx, http.MethodDelete, path, nil, nil)
	if err != nil {
		return err
	}
	return c.call(ctx, req, nil)
}

// call sends a request, and decodes the answer into out, which may be nil.
func (c *Client) call(ctx context.Context, req *http.Request, out any) error {
	resp, err := c.send(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil || resp.StatusCode == http.StatusNoContent {
		// so that the connection can be reused
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxErrorBody))
		return nil
	}
	return decodeInto(ctx, resp.Body, out)
}

// listAll reads all pages of a list.
func listAll[T any](ctx context.Context, c *Client, path string, q url.Values) ([]T, error) {
	all := []T{}
	q = cloneValues(q)
	for {
		var list api.List[T]
		if err := c.get(ctx, path, q, &list); err != nil {
			return nil, err
		}
		all = append(all, list.Items...)
		if list.Next == "" {
			return all, nil
		}
		q.Set("page", list.Next)
	}
}

func cloneValues(q url.Values) url.Values {
	out := make(url.Values, len(q)+1)
	for k, v := range q {
		out[k] = append([]string(nil), v...)
	}
	return out
}
