//go:build bench

package device

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
	"time"
)

// proxy passes requests to an S3 server, each after a while, and counts them. It is the same for all who use it,
// so that what it counts, and what it costs, compare.
type proxy struct {
	url                     string
	latency                 atomic.Int64 // ns
	gets, puts, others      atomic.Int64
	bytesRead, bytesWritten atomic.Int64
}

// asked is what a proxy has counted.
type asked struct{ gets, puts, others, read, written int64 }

func newProxy(t *testing.T, endpoint string) *proxy {
	t.Helper()
	target, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{}
	pass := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // signed by the client
		},
		ModifyResponse: func(r *http.Response) error {
			r.Body = counted{r.Body, &p.bytesRead}
			return nil
		},
		// A client that gives a request up, as one that asked twice does, is no news.
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		Transport:    &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodGet:
			p.gets.Add(1)
		case http.MethodPut:
			p.puts.Add(1)
		default:
			p.others.Add(1)
		}
		r.Body = counted{r.Body, &p.bytesWritten}
		if !p.wait(r.Context()) {
			return
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	p.url = s.URL
	return p
}

// wait waits for the latency, which may become less meanwhile, and reports false when the client went away.
func (p *proxy) wait(ctx context.Context) bool {
	for start := time.Now(); ; {
		left := time.Duration(p.latency.Load()) - time.Since(start)
		if left <= 0 {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(min(left, 100*time.Millisecond)):
		}
	}
}

func (p *proxy) counts() asked {
	return asked{p.gets.Load(), p.puts.Load(), p.others.Load(), p.bytesRead.Load(), p.bytesWritten.Load()}
}

func (a asked) sub(b asked) asked {
	return asked{a.gets - b.gets, a.puts - b.puts, a.others - b.others, a.read - b.read, a.written - b.written}
}

// String names requests and bytes.
func (a asked) String() string {
	return fmt.Sprintf("%d GET %d PUT %d other, %.1f MB read, %.1f MB written", a.gets, a.puts, a.others,
		float64(a.read)/1e6, float64(a.written)/1e6)
}

type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

// Read counts.
func (c counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}
