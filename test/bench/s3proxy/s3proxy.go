// Package s3proxy puts an S3 server as far away as a benchmark wants it, and counts what is asked
// of it. It is the same for all who are measured, so that what it counts, and what it costs,
// compare.
package s3proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Proxy passes requests to an S3 server, each after a while, and counts them. Safe for concurrent
// use.
type Proxy struct {
	URL string

	latency                 atomic.Int64 // ns
	of                      sync.Map     // part of a path → latency of what has it, time.Duration
	gets, puts, others      atomic.Int64
	bytesRead, bytesWritten atomic.Int64
}

// Asked is what a proxy has counted.
type Asked struct{ GETs, PUTs, Others, Read, Written int64 }

// Start starts a proxy on loopback, without latency, that ends with the test.
func Start(t testing.TB, endpoint string) *Proxy {
	t.Helper()
	return start(t, endpoint, nil)
}

// StartAt does so at an address of this host, which may come later.
func StartAt(t testing.TB, endpoint string, at netip.Addr) *Proxy {
	t.Helper()
	return start(t, endpoint, ListenAt(t, at))
}

// ListenAt listens at an address that this machine may only get later.
func ListenAt(t testing.TB, at netip.Addr) net.Listener {
	t.Helper()
	early := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) {
			if at.Is4() {
				err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
			} else {
				err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
			}
		})
		if cerr != nil {
			return cerr
		}
		return err
	}}
	l, err := early.Listen(t.Context(), "tcp", netip.AddrPortFrom(at, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func start(t testing.TB, endpoint string, at net.Listener) *Proxy {
	t.Helper()
	target, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{}
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
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request,
			_ error) {
			w.WriteHeader(http.StatusBadGateway)
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodGet:
			p.gets.Add(1)
		case http.MethodPut:
			p.puts.Add(1)
		default:
			p.others.Add(1)
		}
		r.Body = counted{r.Body, &p.bytesWritten}
		if !p.wait(r.Context(), r.URL.Path) {
			return
		}
		pass.ServeHTTP(w, r)
	}))
	if at != nil {
		_ = s.Listener.Close() // the one on loopback
		s.Listener = at
	}
	s.Start()
	t.Cleanup(s.Close)
	p.URL = s.URL
	return p
}

// SetLatency has every request wait so long, also those that wait already.
func (p *Proxy) SetLatency(d time.Duration) { p.latency.Store(int64(d)) }

// SetLatencyOf has every request wait so long whose path has part in it, also those that wait
// already; 0 ends that.
func (p *Proxy) SetLatencyOf(part string, d time.Duration) {
	if d == 0 {
		p.of.Delete(part)
		return
	}
	p.of.Store(part, d)
}

func (p *Proxy) latencyOf(path string) time.Duration {
	d := time.Duration(p.latency.Load())
	p.of.Range(func(part, of any) bool {
		if strings.Contains(path, part.(string)) {
			d = max(d, of.(time.Duration))
		}
		return true
	})
	return d
}

// wait waits for the latency, which may become less meanwhile, and reports false when the client
// went away.
func (p *Proxy) wait(ctx context.Context, path string) bool {
	for start := time.Now(); ; {
		left := p.latencyOf(path) - time.Since(start)
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

// Asked returns what was counted so far.
func (p *Proxy) Asked() Asked {
	return Asked{p.gets.Load(), p.puts.Load(), p.others.Load(), p.bytesRead.Load(),
		p.bytesWritten.Load()}
}

// Sub returns what came since before.
func (a Asked) Sub(before Asked) Asked {
	return Asked{a.GETs - before.GETs, a.PUTs - before.PUTs, a.Others - before.Others,
		a.Read - before.Read, a.Written - before.Written}
}

// String names requests and bytes.
func (a Asked) String() string {
	return fmt.Sprintf("%d GET %d PUT %d other, %.1f MB read, %.1f MB written", a.GETs,
		a.PUTs, a.Others,
		float64(a.Read)/1e6, float64(a.Written)/1e6)
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
