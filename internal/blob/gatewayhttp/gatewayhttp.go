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
// kind. Invariants:
//
//   - Nothing reaches the store, and no byte of a body is read, before the Authorizer has said yes
//     to exactly that request. The connection of one that is refused is closed, with what was
//     still to come.
//   - What is in memory of bodies is bounded, by a Budget that all gateways of a process share.
//   - A body, or an answer, that makes no progress is cut. One that is slow isn't.
package gatewayhttp

import (
	"context"
	"fmt"
	"net/http"
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
	// valid object key, but for OpList; size is of what would be written. The body is not read yet,
	// and not the authorizer's to read.
	Authorize(r *http.Request, op, key string, size int64) error
}

// AuthorizerFunc is a function as an Authorizer.
type AuthorizerFunc func(r *http.Request, op, key string, size int64) error

// Authorize calls f.
func (f AuthorizerFunc) Authorize(r *http.Request, op, key string, size int64) error {
	return f(r, op, key, size)
}

// Config tunes a handler.
type Config struct {
	MaxBody int64 // bytes of one object that may be written; default 64 MiB
	// Share bounds the bodies in memory; nil: one of a budget of its own.
	Share *Share
	// Patience is how long a body or an answer may take for each 256 KiB; default 30 s.
	Patience time.Duration
}

type handler struct {
	store    blob.Store
	auth     Authorizer
	maxBody  int64
	share    *Share
	patience time.Duration
}

// New returns a handler that serves store to those whom auth lets through.
func New(store blob.Store, auth Authorizer, cfg Config) http.Handler {
	if cfg.MaxBody <= 0 {
		cfg.MaxBody = defaultMaxBody
	}
	if cfg.Share == nil {
		cfg.Share = NewBudget(0).Share()
	}
	if cfg.Patience <= 0 {
		cfg.Patience = defaultPatience
	}
	return &handler{store: store, auth: auth, maxBody: cfg.MaxBody, share: cfg.Share,
		patience: cfg.Patience}
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var err error
	key, isObject := strings.CutPrefix(r.URL.Path, "/o/")
	body := &paced{h: h, conn: http.NewResponseController(w), r: r.Body}
	// for what is still in a buffer when this returns
	defer func() { _ = body.conn.SetWriteDeadline(time.Now().Add(h.patience)) }()
	switch {
	case r.Method != http.MethodPut && r.ContentLength != 0:
		err = errs.New(errs.Invalid, "%s with a body", r.Method)
	case r.URL.Path == "/list" && r.Method == http.MethodGet:
		err = h.list(w, r)
	case !isObject:
		err = errs.New(errs.NotFound, "no such path")
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		err = h.get(w, r, key)
	case r.Method == http.MethodPut:
		err = h.put(w, r, key, body)
	case r.Method == http.MethodDelete:
		err = h.drop(w, r, key)
	default:
		err = errs.New(errs.Unsupported, "method %s", r.Method)
	}
	if r.ContentLength != 0 && !body.whole {
		body.refuse(w, r.ContentLength)
	}
	if err != nil {
		writeError(w, err)
	}
}

func (h *handler) authorize(r *http.Request, op, key string, size int64) error {
	if err := blob.CheckKey(key); err != nil {
		return err
	}
	return h.auth.Authorize(r, op, key, size)
}

func (h *handler) get(w http.ResponseWriter, r *http.Request, key string) error {
	if err := h.authorize(r, OpGet, key, 0); err != nil {
		return err
	}
	rg, err := parseRange(r.Header.Get("Range"))
	if err != nil {
		return err
	}
	if r.Method == http.MethodHead {
		rg = blob.Range{} // its size and its ETag, and no content
	}
	o, free, err := h.fetch(r.Context(), key, rg)
	defer free()
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
	_, _ = h.pacedWriter(w).Write(o.Data) // a client that is gone needs no answer
	return nil
}

func (h *handler) put(w http.ResponseWriter, r *http.Request, key string, in *paced) error {
	switch {
	case r.ContentLength < 0:
		return errs.New(errs.Invalid, "an object without a length").
			WithRemedy("send Content-Length")
	case r.ContentLength > h.maxBody:
		return errs.New(errs.Invalid, "object of %d bytes, more than %d",
			r.ContentLength, h.maxBody)
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
	if err := h.authorize(r, op, key, r.ContentLength); err != nil {
		return err
	}
	if err := h.share.take(r.Context(), r.ContentLength); err != nil {
		return err
	}
	defer h.share.free(r.ContentLength)
	body, err := in.read(r.ContentLength)
	if err != nil {
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
	if err := h.authorize(r, OpDelete, key, 0); err != nil {
		return err
	}
	if err := h.store.Delete(r.Context(), key); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
