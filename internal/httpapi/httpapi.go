package httpapi

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/internal/x/connlimit"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/expose"
)

// Config of the API. Zero durations mean the defaults.
type Config struct {
	// tokens of at least 16 characters each; of operators one a line, of which each counts
	OperatorToken string
	// lets at /metrics alone, as the operator's does; "": only the operator's does
	ScrapeToken string
	Version     string // of this server
	// Heartbeat is how often an otherwise silent watch says that it lives; default 10 s.
	Heartbeat time.Duration
	// LongPoll bounds how long a request waits for a change; default 25 s.
	LongPoll time.Duration
	// Grace is how long requests get to end when Run is told to stop; default 5 s.
	Grace time.Duration
	// UsedEvery is how often it is written when tokens were last used; default a minute.
	UsedEvery time.Duration
	// PerToken is what each token may ask; the zero value is no bound.
	PerToken TokenBounds
}

// Deps are the API's collaborators.
type Deps struct {
	Machines fleet.Machines
	Moves    fleet.Moves
	Workers  fleet.Workers
	Drains   fleet.Drains
	Images   fleet.Images
	Keys     fleet.Keys
	Secrets  fleet.Secrets
	Quotas   fleet.Quotas
	Status   fleet.Status
	Changes  fleet.Changes
	Feed     fleet.WorkerFeed
	Locator  fleet.Locator
	Tokens   fleet.Tokens
	// Enrolment says which workers' certificates are taken.
	Enrolment fleet.Enrolment
	// StoreKeys gives workers the store's credentials; nil: they have their own.
	StoreKeys fleet.StoreKeys
	Log       *slog.Logger
	// Peer returns whose a connection's certificates are. Denied: nobody's of this fleet. nil: no
	// worker is known.
	Peer func([]*x509.Certificate) (identity.Name, error)
	// Dial is how a worker is reached; nil: by its address, without a certificate.
	Dial WorkerDialer
	// DialledAs names the authority by which the server and its workers know each other, and the
	// step of its rotation. Connections are made anew once it is another; nil: it never is.
	DialledAs func() string
	// Lacks says why the server can't do its work now, without names or addresses; nil: it always
	// can.
	Lacks func(context.Context) []string
	// Exposition serves /metrics; nil: there is none.
	Exposition http.Handler
	// Requests counts what is answered; nil: nobody sees it.
	Requests *expose.Requests
	// People knows who signs in by OpenID Connect; nil: nobody can.
	People People
	// Audit keeps who has done what; nil: nobody does.
	Audit Audit
	// Transport carries proxied calls to workers; nil means one of its own.
	Transport http.RoundTripper
}

// Fleet is everything that the API asks for, where one value answers all of it.
type Fleet interface {
	fleet.Machines
	fleet.Moves
	fleet.Workers
	fleet.Drains
	fleet.Images
	fleet.Keys
	fleet.Secrets
	fleet.Quotas
	fleet.Status
	fleet.Changes
	fleet.WorkerFeed
	fleet.Locator
	fleet.Tokens
	fleet.Enrolment
}

// DepsOf returns deps of which every part is f.
func DepsOf(f Fleet, log *slog.Logger) Deps {
	return Deps{Machines: f, Moves: f, Workers: f, Drains: f, Images: f, Keys: f,
		Secrets: f, Quotas: f, Status: f, Changes: f, Feed: f, Locator: f,
		Tokens: f, Enrolment: f, Log: log}
}

// API is the HTTP API of one server. It is a http.Handler, safe for concurrent use.
type API struct {
	cfg     Config
	deps    Deps
	callers *callers
	running running
	refused refusals
	use     *tokenUse
	streams *streams
	handler http.Handler
	proxy   http.Handler
	workers *workerLinks

	waits    waits
	stop     context.CancelFunc  // ends long-lived answers
	inflight *semaphore.Weighted // one each; all of it means that no request is left
}

// New checks the config and returns an API that serves at once.
func New(cfg Config, deps Deps) (*API, error) {
	if cfg.UsedEvery == 0 {
		cfg.UsedEvery = time.Minute
	}
	known, err := newCallers(cfg, deps.Tokens, deps.People)
	if err != nil {
		return nil, fmt.Errorf("set up the API's tokens: %w", err)
	}
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = 10 * time.Second
	}
	if cfg.LongPoll == 0 {
		cfg.LongPoll = 25 * time.Second
	}
	if cfg.Grace == 0 {
		cfg.Grace = 5 * time.Second
	}
	if deps.Lacks == nil {
		deps.Lacks = func(context.Context) []string { return nil }
	}
	if deps.Requests == nil {
		deps.Requests = NewRequests(nil)
	}
	if deps.Peer == nil {
		deps.Peer = noPeer
	}
	a := &API{cfg: cfg, deps: deps, callers: known,
		workers:  newWorkerLinks(deps.Dial, deps.DialledAs),
		inflight: semaphore.NewWeighted(maxInflight), use: newTokenUse(cfg.PerToken),
		streams: newStreams(deps.Quotas)}
	lifetime, stop := context.WithCancel(context.Background())
	a.stop = stop
	a.waits = waits{changes: deps.Changes, lifetime: lifetime,
		longPoll: cfg.LongPoll, heartbeat: cfg.Heartbeat}
	a.proxy = a.newProxy()
	a.handler = a.observe(a.newMux())
	return a, nil
}

// SetOperatorTokens replaces the operator tokens by those in a text, one a line. After an error the
// former ones count.
func (a *API) SetOperatorTokens(text string) error { return a.callers.setOperator(text) }

// NewRequests returns what counts the requests of an API in a registry.
func NewRequests(reg prometheus.Registerer) *expose.Requests {
	return expose.NewRequests(reg, "sluice_api_request_duration_seconds",
		"Time from a request to the end of its answer; watches and streams last as they are wanted.")
}

// maxHeader is room for a command in the query of an exec.
const maxHeader = 256 << 10

// maxInflight bounds the requests that are served at once, long polls and watches included.
const maxInflight = 1 << 16

// ServeHTTP serves one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !a.inflight.TryAcquire(1) {
		writeError(w, errs.New(errs.Unavailable, "%d requests are being served, which is the bound",
			maxInflight))
		return
	}
	defer a.inflight.Release(1)
	a.handler.ServeHTTP(w, r)
}

// Run serves on all listeners until ctx ends or one of them breaks, and closes them. When ctx ends,
// watches, long polls and proxied streams end at once; other requests get Config.Grace. It returns
// nil after an ordered stop, when no request is left.
func (a *API) Run(ctx context.Context, listeners ...net.Listener) error {
	base, cancelRequests := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancelRequests(nil)
	server := &http.Server{
		Handler:           a,
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    maxHeader,
		ConnContext:       connlimit.Context,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(quietly{a.deps.Log.Handler()}, slog.LevelWarn),
	}
	group, groupCtx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		group.Go(func() error {
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve the API on %s: %w", l.Addr(), err)
			}
			return nil
		})
	}
	group.Go(func() error { return a.writeUsed(groupCtx) })
	group.Go(func() error { return a.endCalls(groupCtx) })
	group.Go(func() error { return a.countRefused(groupCtx) })
	group.Go(func() error {
		<-groupCtx.Done()
		a.stop()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.cfg.Grace)
		defer cancel()
		err := server.Shutdown(grace)
		cancelRequests(errors.New("the server stops"))
		return errors.Join(ignoreDeadline(err), server.Close())
	})
	err := group.Wait()
	// Hijacked connections are not the http.Server's any more; their handlers end with their
	// contexts.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.cfg.Grace)
	defer cancel()
	if a.inflight.Acquire(last, maxInflight) == nil {
		a.inflight.Release(maxInflight)
	}
	return err
}

// ignoreDeadline: requests that outlast the grace are cut off; that is the bound and no failure.
func ignoreDeadline(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}
