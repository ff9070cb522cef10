// Package gatewayblob is a blob.Store that reaches the object store through a worker's store
// gateway, so that whoever uses it holds a token for what it may touch and no credential of the
// store itself. Package gatewayhttp is the serving side, and describes the protocol.
//
// Invariant: a mutation whose answer didn't arrive whole is Unavailable, never assumed to have
// failed. No conditional write is ever sent twice. Only the gateway's own document says no: an
// answer without one is of something else, which knows nothing of the store.
package gatewayblob

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/gatewayhttp"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	defaultTimeout = 30 * time.Second
	// idlePerHost is how many connections are kept for the next requests: as many as a disk has
	// under way when it boots. Each that isn't kept costs a port for a minute.
	idlePerHost   = 128
	maxErrorBytes = 64 << 10
)

// Config says where the gateway is.
type Config struct {
	BaseURL string        // such as http://[fe80::1%25eth0]:7070; a path in front of /o/ is kept
	Token   string        // sent as a bearer token; may be empty
	Timeout time.Duration // until an answer begins; default 30 s
	// Dial connects to the gateway; nil: as net.Dialer does.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Store is a client of a store gateway. It is safe for concurrent use.
type Store struct {
	base      *url.URL
	token     string
	client    *http.Client
	transport *http.Transport
}

var _ blob.Store = (*Store)(nil)

// New returns a client. It makes no connection yet.
func New(cfg Config) (*Store, error) {
	base, err := url.Parse(cfg.BaseURL)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return nil, errs.Wrap(errs.Invalid, err, "bad store gateway URL %q", cfg.BaseURL)
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext
	}
	transport := &http.Transport{
		DialContext:           cfg.Dial,
		MaxIdleConns:          idlePerHost,
		MaxIdleConnsPerHost:   idlePerHost,
		IdleConnTimeout:       time.Minute,
		ResponseHeaderTimeout: cfg.Timeout,
		DisableCompression:    true,
	}
	// A redirect is an answer like others: who follows one takes something else for the gateway.
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request,
		[]*http.Request) error {
		return http.ErrUseLastResponse
	}}
	return &Store{base: base, token: cfg.Token, client: client, transport: transport}, nil
}

// Close implements blob.Store.
func (s *Store) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// Get implements blob.Store.
func (s *Store) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	header := http.Header{}
	none := r.Offset >= 0 && r.Length == 0
	switch {
	// one byte tells the size and the ETag, too; an answer to a HEAD could not say why not
	case none:
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", r.Offset, r.Offset))
	case r.Offset < 0:
		header.Set("Range", fmt.Sprintf("bytes=%d", r.Offset))
	case r.Length < 0 && r.Offset > 0:
		header.Set("Range", fmt.Sprintf("bytes=%d-", r.Offset))
	case r.Length > 0:
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", r.Offset, r.Offset+r.Length-1))
	}
	resp, err := s.object(ctx, http.MethodGet, key, header, nil)
	if err != nil {
		return blob.Object{}, err
	}
	defer resp.Body.Close()
	o, err := readObject(resp)
	if err != nil {
		return blob.Object{}, fmt.Errorf("get object %s: %w", key, err)
	}
	if none {
		o.Data = nil
		if _, _, err := r.Resolve(o.Size); err != nil {
			return blob.Object{}, err
		}
	}
	return o, nil
}

func readObject(resp *http.Response) (o blob.Object, err error) {
	if o.ETag, err = gatewayhttp.UnquoteETag(resp.Header.Get("ETag")); err != nil || o.ETag == "" {
		return o, errs.Wrap(errs.Unavailable, err, "answer without an ETag")
	}
	if resp.ContentLength < 0 {
		return o, errs.New(errs.Unavailable, "answer without a length")
	}
	o.Size = resp.ContentLength
	if resp.StatusCode == http.StatusPartialContent {
		_, total, _ := strings.Cut(resp.Header.Get("Content-Range"), "/")
		if o.Size, err = strconv.ParseInt(total, 10, 64); err != nil {
			return o, errs.Wrap(errs.Unavailable, err, "content range of the answer")
		}
	}
	o.Data = make([]byte, resp.ContentLength)
	if _, err := io.ReadFull(resp.Body, o.Data); err != nil {
		return blob.Object{}, errs.Wrap(errs.Unavailable, err, "read the answer")
	}
	return o, nil
}

// Put implements blob.Store.
func (s *Store) Put(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	return s.put(ctx, key, body, http.Header{})
}

// PutIfAbsent implements blob.Store.
func (s *Store) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	return s.put(ctx, key, body, http.Header{"If-None-Match": {"*"}})
}

// PutIfMatch implements blob.Store.
func (s *Store) PutIfMatch(ctx context.Context, key string, body []byte,
	match blob.ETag) (blob.ETag, error) {
	return s.put(ctx, key, body, http.Header{"If-Match": {gatewayhttp.QuoteETag(match)}})
}

func (s *Store) put(ctx context.Context, key string, body []byte,
	header http.Header) (blob.ETag, error) {
	resp, err := s.object(ctx, http.MethodPut, key, header, body)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	etag, err := gatewayhttp.UnquoteETag(resp.Header.Get("ETag"))
	if err != nil || etag == "" {
		return "", errs.Wrap(errs.Unavailable, err, "put object %s: answer without an ETag", key)
	}
	return etag, nil
}

// Delete implements blob.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	resp, err := s.object(ctx, http.MethodDelete, key, nil, nil)
	if err != nil {
		return err
	}
	resp.Body.Close()
	return nil
}

// List implements blob.Store.
func (s *Store) List(ctx context.Context, prefix, startAfter string,
	yield func(blob.Entry) bool) error {
	u := s.base.JoinPath("list")
	u.RawQuery = url.Values{"prefix": {prefix}, "after": {startAfter}}.Encode()
	resp, err := s.do(ctx, http.MethodGet, u, nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := json.NewDecoder(resp.Body)
	for {
		var line gatewayhttp.ListLine
		if err := lines.Decode(&line); err != nil {
			return errs.Wrap(errs.Unavailable, err, "list %q", prefix)
		}
		switch {
		case line.End:
			return nil
		case line.Error != nil:
			return line.Error.Err()
		case !yield(blob.Entry{Key: line.Key, Size: line.Size}):
			return nil
		}
	}
}

func (s *Store) object(ctx context.Context, method, key string, header http.Header,
	body []byte) (*http.Response, error) {
	if err := blob.CheckKey(key); err != nil {
		return nil, err
	}
	u := *s.base
	u.Path, u.RawPath = strings.TrimSuffix(u.Path, "/")+"/o/"+key, ""
	return s.do(ctx, method, &u, header, body)
}

// do sends a request and returns an answer of a status that the gateway has for success, whose body
// the caller closes.
func (s *Store) do(ctx context.Context, method string, u *url.URL, header http.Header,
	body []byte) (*http.Response, error) {
	var reader io.Reader
	if method == http.MethodPut {
		reader = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), reader)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "%s %s", method, u.Path)
	}
	if header != nil {
		req.Header = header
	}
	if s.token != "" {
		req.Header.Set("Authorization", "Bearer "+s.token)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" { // the store had nothing of it
			blob.TellAttempt(ctx, 0)
		}
		return nil, errs.Wrap(errs.Unavailable, err, "store gateway")
	}
	if atStore, ok := gatewayhttp.StoreTime(resp.Header); ok {
		blob.TellAttempt(ctx, atStore)
	}
	switch {
	case method == http.MethodDelete && resp.StatusCode == http.StatusNoContent,
		method == http.MethodPut && resp.StatusCode == http.StatusOK,
		method == http.MethodGet && (resp.StatusCode == http.StatusOK ||
			resp.StatusCode == http.StatusPartialContent):
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, failure(resp, method, u.Path)
}

func failure(resp *http.Response, method, path string) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes))
	if err == nil {
		var body gatewayhttp.ErrorBody
		if json.Unmarshal(text, &body) == nil && body.Kind != "" {
			return body.Err()
		}
	}
	said := errs.New(errs.Unavailable, "%s %s: not the store gateway's answer: %s, %s", method,
		path, resp.Status, resp.Header.Get("Content-Type")).
		WithRemedy("check that the worker's store gateway is at its address, and what is between")
	after := blob.RetryAfter(resp.Header, time.Now())
	if resp.StatusCode == http.StatusTooManyRequests || after > 0 {
		return errs.Wrap(errs.Unavailable, &blob.Throttled{After: after, Cause: said},
			"store gateway")
	}
	return said
}
