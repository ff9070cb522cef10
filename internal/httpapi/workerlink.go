package httpapi

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// WorkerDialer returns the TLS config for connections to one worker, which takes that worker alone,
// and how long what is opened with it may be used; zero is for ever.
type WorkerDialer func(fleet.WorkerAPI) (cfg *tls.Config, until time.Time)

// workerLinks carry proxied calls to workers. Each worker has connections of its own: they were
// opened to that worker, by its name, and are used for no other. Safe for concurrent use.
type workerLinks struct {
	dial WorkerDialer

	mu   sync.Mutex
	open map[fleet.WorkerID]workerLink
}

type workerLink struct {
	to    fleet.WorkerAPI
	http  *http.Transport
	until time.Time
}

func newWorkerLinks(dial WorkerDialer) *workerLinks {
	if dial == nil {
		dial = func(fleet.WorkerAPI) (*tls.Config, time.Time) { return nil, time.Time{} }
	}
	return &workerLinks{dial: dial, open: map[fleet.WorkerID]workerLink{}}
}

// RoundTrip implements http.RoundTripper for requests that have a target.
func (l *workerLinks) RoundTrip(r *http.Request) (*http.Response, error) {
	return l.to(targetOf(r).worker).RoundTrip(r)
}

// to returns what goes to a worker. A worker that is elsewhere by now, or has joined anew, gets new
// connections, and so does any before the server's certificate expires. What is under way goes on.
func (l *workerLinks) to(w fleet.WorkerAPI) *http.Transport {
	l.mu.Lock()
	defer l.mu.Unlock()
	link, ok := l.open[w.Worker]
	if ok && link.to == w && (link.until.IsZero() || time.Now().Before(link.until)) {
		return link.http
	}
	if ok {
		link.http.CloseIdleConnections()
	}
	t := newTransport()
	cfg, until := l.dial(w)
	t.TLSClientConfig = cfg
	l.open[w.Worker] = workerLink{to: w, http: t, until: until}
	return t
}

// newTransport carries calls to a worker. There is no timeout on an answer, because exec and
// followed logs last; there is one on reaching the worker.
func newTransport() *http.Transport {
	return &http.Transport{
		DialContext: (&net.Dialer{Timeout: 3 * time.Second, KeepAlive: 15 * time.Second}).
			DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true,
	}
}
