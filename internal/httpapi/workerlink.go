package httpapi

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// WorkerDialer returns the TLS config for connections to one worker, which takes that worker alone,
// and how long what is opened with it may be used; zero is for ever.
type WorkerDialer func(fleet.WorkerAPI) (cfg *tls.Config, until time.Time)

// workerLinks carry proxied calls to workers. Each worker has connections of its own: they were
// opened to that worker, by its name, and are used for no other. Safe for concurrent use.
type workerLinks struct {
	dial WorkerDialer
	as   func() string

	mu   sync.Mutex
	open map[fleet.WorkerID]workerLink
}

type workerLink struct {
	to    fleet.WorkerAPI
	http  *http.Transport
	until time.Time
	as    string
}

func newWorkerLinks(dial WorkerDialer, as func() string) *workerLinks {
	if as == nil {
		as = func() string { return "" }
	}
	if dial == nil {
		dial = func(fleet.WorkerAPI) (*tls.Config, time.Time) { return nil, time.Time{} }
	}
	return &workerLinks{dial: dial, as: as, open: map[fleet.WorkerID]workerLink{}}
}

// RoundTrip implements http.RoundTripper for requests that have a target.
func (l *workerLinks) RoundTrip(r *http.Request) (*http.Response, error) {
	return l.to(targetOf(r).worker).RoundTrip(r)
}

// to returns what goes to a worker. A worker that is elsewhere by now, or has joined anew, gets new
// connections, and so does any before the server's certificate expires, or once that is of another
// authority. What is under way goes on.
func (l *workerLinks) to(w fleet.WorkerAPI) *http.Transport {
	l.mu.Lock()
	defer l.mu.Unlock()
	as := l.as()
	link, ok := l.open[w.Worker]
	if ok && link.to == w && link.as == as &&
		(link.until.IsZero() || time.Now().Before(link.until)) {
		return link.http
	}
	if ok {
		link.http.CloseIdleConnections()
	}
	t := newTransport()
	cfg, until := l.dial(w)
	t.TLSClientConfig = cfg
	l.open[w.Worker] = workerLink{to: w, http: t, until: until, as: as}
	return t
}

// spareWithin bounds how long a worker may take to answer what opens a spare connection.
const spareWithin = 5 * time.Second

// spare has a connection to a worker open for the next session there, which uses it up: it would
// wait for a TLS handshake otherwise. There is one already where an earlier session left it.
func (l *workerLinks) spare(ctx context.Context, w fleet.WorkerAPI, base string) {
	ctx, cancel := context.WithTimeout(ctx, spareWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/healthz", nil)
	if err != nil {
		return
	}
	// Among the connections that net/http keeps for sessions are those that came about for one.
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "websocket")
	resp, err := l.to(w).RoundTrip(req)
	if err != nil {
		return // the next session meets the same, and says so
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxErrorBody))
	_ = resp.Body.Close()
}

// silentFor is how long a worker's host may leave what was sent to it unanswered. One that has lost
// its power says nothing, and a connection that is kept would hang for a quarter of an hour.
const silentFor = 15 * time.Second

// boundSilence makes a connection end once nothing is acknowledged for silentFor.
func boundSilence(_, _ string, raw syscall.RawConn) error {
	var set error
	err := raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT,
			int(silentFor/time.Millisecond))
	})
	if err != nil {
		return err
	}
	return set
}

// newTransport carries calls to a worker. There is no timeout on an answer, because exec and
// followed logs last; there is one on reaching the worker.
func newTransport() *http.Transport {
	return &http.Transport{
		DialContext: (&net.Dialer{Timeout: 3 * time.Second, KeepAlive: silentFor,
			Control: boundSilence}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true,
	}
}
