// Package s3faulttest is an HTTP proxy for tests, in front of a real S3 server, that answers as
// proxies, gateways, portals and broken stores do. Faults above the SDK are decorate's; these are
// on the wire, before anything has been believed.
//
// Each test, or each part of one that runs beside others, has a proxy of its own; one server is
// enough for all.
package s3faulttest

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// Op is a kind of request to S3, or several.
type Op int

// The requests that a store makes of S3.
const (
	Get Op = 1 << iota
	Put
	List
	Delete
	All = Get | Put | List | Delete
)

// OpOf says what a request is.
func OpOf(r *http.Request) Op {
	switch {
	case r.Method == http.MethodPut:
		return Put
	case r.Method == http.MethodDelete:
		return Delete
	case r.URL.Query().Has("list-type"):
		return List
	}
	return Get
}

// Proxy passes requests on to an S3 server, and answers as it is told to while it is broken. It is
// safe for concurrent use.
type Proxy struct {
	Endpoint string // http://127.0.0.1:port

	target string // host:port of the server
	client *http.Transport

	mu     sync.Mutex
	choose func(*http.Request) *Kind // nil: the proxy is a good one
	healed chan struct{}             // closed when the present fault ends
	hits   int
	first  map[string]*reply // the first answer to each read, by its path, query and range
	stored map[string][]byte // what was put last, by its path
}

// Start starts a proxy in front of the server at addr (host:port), which ends with the test.
func Start(t testing.TB, addr string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{
		Endpoint: "http://" + l.Addr().String(), target: addr, healed: make(chan struct{}),
		first: map[string]*reply{}, stored: map[string][]byte{},
		client: &http.Transport{MaxIdleConnsPerHost: 32, DisableCompression: true},
	}
	s := &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	var served errgroup.Group
	served.Go(func() error { return s.Serve(l) })
	t.Cleanup(func() {
		p.Heal()
		_ = s.Close()
		_ = served.Wait() // it says that it was closed
		p.client.CloseIdleConnections()
	})
	return p
}

// Break has the requests that a kind is for, and for which match is true, answered falsely until
// Heal. A nil match is true for all.
func (p *Proxy) Break(k Kind, match func(*http.Request) bool) {
	p.BreakEach(func(r *http.Request) *Kind {
		if match != nil && !match(r) {
			return nil
		}
		return &k
	})
}

// BreakEach asks choose how each request is answered until Heal: nil, or a kind that isn't for it,
// is well. It is called by one request at a time.
func (p *Proxy) BreakEach(choose func(*http.Request) *Kind) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.choose, p.hits = choose, 0
}

// Heal makes the proxy a good one. Requests that are being held lose their connection.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.choose = nil
	close(p.healed)
	p.healed = make(chan struct{})
}

// Hits returns how many requests the newest fault has met.
func (p *Proxy) Hits() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hits
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the client is gone
	}
	x := &exchange{w: w, r: r, body: body, p: p}
	p.mu.Lock()
	var k *Kind
	if p.choose != nil {
		k = p.choose(r)
	}
	if k != nil && (OpOf(r)&k.Ops == 0 || k.Whole && !whole(r)) {
		k = nil
	}
	if k != nil {
		p.hits++
	}
	x.healed = p.healed
	p.mu.Unlock()
	if r.URL.Path == elsewhere { // where redirects lead to: a page that is fine as far as HTTP goes
		x.send(&reply{status: http.StatusOK, header: http.Header{"Content-Type": {"text/html"},
			"Etag": {pageETag}}, body: []byte(portal)})
		return
	}
	if k != nil {
		k.answer(x)
		return
	}
	rep := x.forward()
	p.remember(r, body, rep)
	x.send(rep)
}

// whole reports whether a read is of a whole object.
func whole(r *http.Request) bool {
	part := r.Header.Get("Range")
	return part == "" || part == "bytes=0-"
}

// remember keeps what some kinds answer with later.
func (p *Proxy) remember(r *http.Request, sent []byte, rep *reply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case rep.status > 299:
	case r.Method == http.MethodPut:
		p.stored[r.URL.Path] = sent
	case r.Method == http.MethodGet && p.first[cacheKey(r)] == nil:
		p.first[cacheKey(r)] = rep
	}
}

func cacheKey(r *http.Request) string { return r.URL.RequestURI() + " " + r.Header.Get("Range") }

// reply is an answer, whole.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// exchange is one request, and the way to answer it.
type exchange struct {
	w      http.ResponseWriter
	r      *http.Request
	body   []byte
	p      *Proxy
	healed <-chan struct{}
}

// forward has the server do it, and returns its answer.
func (x *exchange) forward() *reply {
	// a client that is gone doesn't stop what a proxy has begun
	req := x.r.Clone(context.WithoutCancel(x.r.Context()))
	req.URL.Scheme, req.URL.Host, req.RequestURI = "http", x.p.target, ""
	req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(x.body)), int64(len(x.body))
	req.Header.Del("Expect")
	if len(x.body) == 0 {
		req.Body = http.NoBody
	}
	resp, err := x.p.client.RoundTrip(req)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return &reply{status: resp.StatusCode, header: resp.Header, body: body}
}

// send answers as a good proxy does.
func (x *exchange) send(rep *reply) {
	for name, values := range rep.header {
		x.w.Header()[name] = values
	}
	if rep.status != http.StatusNoContent && rep.status != http.StatusNotModified {
		x.w.Header().Set("Content-Length", strconv.Itoa(len(rep.body)))
	}
	x.w.WriteHeader(rep.status)
	_, _ = x.w.Write(rep.body) // a client that is gone needs no answer
}

// raw answers with these bytes, and ends the connection.
func (x *exchange) raw(text []byte) {
	if c := x.take(); c != nil {
		_, _ = c.Write(text)
		_ = c.Close()
	}
}

// reset ends the connection by an RST.
func (x *exchange) reset() {
	if c, ok := x.take().(*net.TCPConn); ok {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
}

// take returns the connection, which is the caller's from then on.
func (x *exchange) take() net.Conn {
	h, ok := x.w.(http.Hijacker)
	if !ok {
		panic(http.ErrAbortHandler)
	}
	c, _, err := h.Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return c
}

// trickle sends these bytes one at a time until the fault ends, and then cuts the connection.
func (x *exchange) trickle(text []byte) {
	c := x.take()
	defer c.Close()
	for i := range text {
		select {
		case <-x.healed:
			return
		case <-time.After(50 * time.Millisecond):
		}
		if _, err := c.Write(text[i : i+1]); err != nil {
			return
		}
	}
}

// head returns a reply's status line and headers as they are on the wire, with a body of that
// length; below 0: without.
func (rep *reply) head(length int) []byte {
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 " + strconv.Itoa(rep.status) + " " + http.StatusText(
		rep.status) + "\r\n")
	h := rep.header.Clone()
	h.Del("Content-Length")
	h.Set("Connection", "close")
	if length >= 0 {
		h.Set("Content-Length", strconv.Itoa(length))
	}
	_ = h.Write(&b) // a buffer takes all
	b.WriteString("\r\n")
	return b.Bytes()
}
