// Package gatewayhttp is the serving side of a store gateway: a blob.Store over HTTP/1.1, through
// which a VM that holds no credential reaches what its worker lets it reach. Package gatewayblob is
// the other side.
//
//	GET    /o/<key>            Range: bytes=a-b      200 or 206, ETag
//	HEAD   /o/<key>                                  200, ETag, Content-Length
//	PUT    /o/<key>            If-None-Match: *  or  If-Match: "etag"  or neither      200, ETag
//	                           Server-Timing: store;dur=<milliseconds>, also of an error
//	DELETE /o/<key>                                  204
//	GET    /list?prefix=&after=                      200, a document per line, {"end":true} last
//
// An error is the JSON document {"kind","message","remedy"}, with a status that follows from the
// kind. Invariant: nothing reaches the store before the Authorizer has said yes to exactly that
// request.
package gatewayhttp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// The operations that an Authorizer is asked about.
const (
	OpGet         = "get"
	OpPut         = "put"
	OpPutIfAbsent = "put_if_absent"
	OpPutIfMatch  = "put_if_match"
	OpDelete      = "delete"
	OpList        = "list" // key is the prefix, and may be empty
)

const defaultMaxBody = 64 << 20

// Authorizer decides about each request. It is safe for concurrent use.
type Authorizer interface {
	// Authorize returns nil to let a request through, else the error that the client gets. key is a
	// valid object key, but for OpList; body is what would be written, and must not be kept or
	// changed.
	Authorize(r *http.Request, op, key string, body []byte) error
}

// AuthorizerFunc is a function as an Authorizer.
type AuthorizerFunc func(r *http.Request, op, key string, body []byte) error

// Authorize calls f.
func (f AuthorizerFunc) Authorize(r *http.Request, op, key string, body []byte) error {
	return f(r, op, key, body)
}

// Config tunes a handler.
type Config struct {
	MaxBody int64 // bytes of one object that may be written; default 64 MiB
}

type handler struct {
	store   blob.Store
	auth    Authorizer
	maxBody int64
}

// New returns a handler that serves store to those whom auth lets through.
func New(store blob.Store, auth Authorizer, cfg Config) http.Handler {
	if cfg.MaxBody <= 0 {
		cfg.MaxBody = defaultMaxBody
	}
	return &handler{store: store, auth: auth, maxBody: cfg.MaxBody}
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var err error
	key, isObject := strings.CutPrefix(r.URL.Path, "/o/")
	switch {
	case r.URL.Path == "/list" && r.Method == http.MethodGet:
		err = h.list(w, r)
	case !isObject:
		err = errs.New(errs.NotFound, "no such path")
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		err = h.get(w, r, key)
	case r.Method == http.MethodPut:
		err = h.put(w, r, key)
	case r.Method == http.MethodDelete:
		err = h.drop(w, r, key)
	default:
		err = errs.New(errs.Unsupported, "method %s", r.Method)
	}
	if err != nil {
		writeError(w, err)
	}
}

func (h *handler) authorize(r *http.Request, op, key string, body []byte) error {
	if err := blob.CheckKey(key); err != nil {
		return err
	}
	return h.auth.Authorize(r, op, key, body)
}

func (h *handler) get(w http.ResponseWriter, r *http.Request, key string) error {
	if err := h.authorize(r, OpGet, key, nil); err != nil {
		return err
	}
	rg, err := parseRange(r.Header.Get("Range"))
	if err != nil {
		return err
	}
	if r.Method == http.MethodHead {
		rg = blob.Range{}
	}
	o, err := h.store.Get(r.Context(), key, rg)
	if err != nil {
		return err
	}
	header := w.Header()
	header.Set("Content-Type", "application/octet-stream")
	header.Set("ETag", QuoteETag(o.ETag))
	if r.Method == http.MethodHead {
		header.Set("Content-Length", strconv.FormatInt(o.Size, 10))
		return nil
	}
	header.Set("Content-Length", strconv.Itoa(len(o.Data)))
	if !rg.Whole() && len(o.Data) > 0 {
		first := rg.Offset
		if first < 0 {
			first = o.Size - int64(len(o.Data))
		}
		header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first,
			first+int64(len(o.Data))-1, o.Size))
		w.WriteHeader(http.StatusPartialContent)
	}
	_, _ = w.Write(o.Data) // a client that is gone needs no answer
	return nil
}

func (h *handler) put(w http.ResponseWriter, r *http.Request, key string) error {
	if r.ContentLength > h.maxBody {
		return errs.New(errs.Invalid, "object of %d bytes, more than %d",
			r.ContentLength, h.maxBody)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.maxBody))
	if err != nil {
		return errs.Wrap(errs.Unavailable, err, "read the object's body")
	}
	absent, match := r.Header.Get("If-None-Match"), r.Header.Get("If-Match")
	op, write := OpPut, h.store.Put
	switch {
	case absent != "" && (match != "" || absent != "*"):
		return errs.New(errs.Unsupported, "this combination of conditions")
	case absent != "":
		op, write = OpPutIfAbsent, h.store.PutIfAbsent
	case match != "":
		want, err := UnquoteETag(match)
		if err != nil {
			return err
		}
		op = OpPutIfMatch
		write = func(ctx context.Context, key string, body []byte) (blob.ETag, error) {
			return h.store.PutIfMatch(ctx, key, body, want)
		}
	}
	if err := h.authorize(r, op, key, body); err != nil {
		return err
	}
	began := time.Now()
	etag, err := write(r.Context(), key, body)
	w.Header().Set(headerTiming, storeTiming+
		strconv.FormatFloat(time.Since(began).Seconds()*1000, 'f', 3, 64))
	if err != nil {
		return err
	}
	w.Header().Set("ETag", QuoteETag(etag))
	w.WriteHeader(http.StatusOK)
	return nil
}

// The header of W3C Server Timing, with the only metric that a gateway tells.
const (
	headerTiming = "Server-Timing"
	storeTiming  = "store;dur="
)

// StoreTime returns how long the store had of a write, by the gateway's answer; false if that
// doesn't say.
func StoreTime(answer http.Header) (time.Duration, bool) {
	text, ok := strings.CutPrefix(answer.Get(headerTiming), storeTiming)
	ms, err := strconv.ParseFloat(text, 64)
	if !ok || err != nil || !(ms >= 0 && ms < maxTimingMS) {
		return 0, false
	}
	return max(1, time.Duration(ms*float64(time.Millisecond))), true
}

// maxTimingMS is more than any request takes, and less than a duration holds.
const maxTimingMS = 1e9

func (h *handler) drop(w http.ResponseWriter, r *http.Request, key string) error {
	if err := h.authorize(r, OpDelete, key, nil); err != nil {
		return err
	}
	if err := h.store.Delete(r.Context(), key); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// ListLine is one line of a listing: an entry, or what ends it. A listing without an end was cut.
type ListLine struct {
	Key   string     `json:"key,omitempty"`
	Size  int64      `json:"size,omitempty"`
	End   bool       `json:"end,omitempty"`
	Error *ErrorBody `json:"error,omitempty"`
}

func (h *handler) list(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	prefix := query.Get("prefix")
	if err := h.auth.Authorize(r, OpList, prefix, nil); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	buffered := bufio.NewWriterSize(w, 64<<10)
	out := json.NewEncoder(buffered)
	var writeErr error
	err := h.store.List(r.Context(), prefix, query.Get("after"), func(e blob.Entry) bool {
		writeErr = out.Encode(ListLine{Key: e.Key, Size: e.Size})
		return writeErr == nil
	})
	last := ListLine{End: true}
	if err != nil {
		last = ListLine{Error: errorBody(err)}
	}
	if writeErr == nil {
		writeErr = errors.Join(out.Encode(last), buffered.Flush())
	}
	_ = writeErr // a client that is gone needs no answer
	return nil
}

// QuoteETag returns an ETag as HTTP writes it.
func QuoteETag(etag blob.ETag) string { return `"` + url.QueryEscape(string(etag)) + `"` }

// UnquoteETag undoes QuoteETag.
func UnquoteETag(s string) (blob.ETag, error) {
	inner, ok := strings.CutPrefix(s, `"`)
	inner, okEnd := strings.CutSuffix(inner, `"`)
	etag, err := url.QueryUnescape(inner)
	if !ok || !okEnd || err != nil {
		return "", errs.New(errs.Invalid, "bad etag %q", s)
	}
	return blob.ETag(etag), nil
}

// parseRange understands the single ranges that a blob.Range can say.
func parseRange(s string) (blob.Range, error) {
	if s == "" {
		return blob.All(), nil
	}
	bad := errs.New(errs.Invalid, "bad range %q", s)
	spec, ok := strings.CutPrefix(s, "bytes=")
	first, last, dash := strings.Cut(spec, "-")
	if !ok || !dash {
		return blob.Range{}, bad
	}
	if first == "" {
		n, err := strconv.ParseInt(last, 10, 64)
		if err != nil || n <= 0 {
			return blob.Range{}, bad
		}
		return blob.Range{Offset: -n, Length: -1}, nil
	}
	offset, err := strconv.ParseInt(first, 10, 64)
	if err != nil || offset < 0 {
		return blob.Range{}, bad
	}
	if last == "" {
		return blob.Range{Offset: offset, Length: -1}, nil
	}
	end, err := strconv.ParseInt(last, 10, 64)
	if err != nil || end < offset {
		return blob.Range{}, bad
	}
	return blob.Range{Offset: offset, Length: end - offset + 1}, nil
}
