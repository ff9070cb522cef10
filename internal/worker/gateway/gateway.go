package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/blob/gatewayhttp"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
	"github.com/sluice-platform/sluice/internal/x/repeats"
)

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 5 * time.Minute
	openRetry     = 500 * time.Millisecond
	drainTimeout  = 100 * time.Millisecond // for answers under way when the gateway closes
	sayAgain      = time.Minute            // between two lines that say the same

	// maxConns is of one VM: twice what its disk keeps open, and what a boot has under way.
	maxConns       = 512
	maxHeaderBytes = 16 << 10 // a key is at most 1 KiB, three times that when it is escaped
)

// Config of one VM's gateway.
type Config struct {
	Store blob.Store // of the pool, with the worker's credentials
	// Listen opens the port on the VM's link. It is retried until it succeeds.
	Listen func(ctx context.Context) (net.Listener, error)
	// Done is called for each request that the store answered, as by decorate.Meter; may be nil.
	Done func(decorate.Done)
	// Refused is called for each request that the gateway refuses; may be nil.
	Refused func()
	// Memory bounds the bodies in memory, over all gateways that share it; nil: one of its own.
	Memory *gatewayhttp.Budget
	Limits Limits
	// Codec returns what maps that a VM writes are decoded with; nil: one of its own.
	Codec func() (*format.Codec, error)
	// Patience is how long a body may take for each 256 KiB; default 30 s.
	Patience time.Duration
	Logger   *slog.Logger
}

// Counts is what one VM asked of the store since its gateway was opened.
type Counts struct {
	Reads        int64 `json:"reads"` // requests that were answered: Get and List
	Writes       int64 `json:"writes"`
	BytesRead    int64 `json:"bytes_read"` // by requests that succeeded, as those written
	BytesWritten int64 `json:"bytes_written"`
	Refused      int64 `json:"refused"`             // by the gateway; the store was not asked
	Throttled    int64 `json:"throttled,omitempty"` // of them: it asked for too much at a time
	UsageCounts
}

// Gateway is the gateway of one VM. It refuses every request until Grant. Safe for concurrent use.
type Gateway struct {
	listen  func(ctx context.Context) (net.Listener, error)
	ready   chan struct{} // closed once the port is open
	server  *http.Server
	meter   *decorate.Metered
	refused *refusals
	guard   guard
	shared  blob.Store // what isn't counted as the VM's
	limits  Limits
	pace    pace
	usage   usage
	measure chan struct{} // the disk should be measured; holds one
	log     *slog.Logger
	said    *repeats.Handler // of log: a VM that is refused once is refused over and over

	mu    sync.Mutex
	grant *grant // nil: nobody gets in
	// left: the gateway ended while somebody had access, who asks the next one.
	left bool
}

type grant struct {
	access Access
	live   context.Context
	kill   context.CancelFunc
}

// New returns a gateway that serves once Run is called.
func New(cfg Config) *Gateway {
	said := repeats.New(cfg.Logger.Handler(), sayAgain)
	g := &Gateway{listen: cfg.Listen, ready: make(chan struct{}), shared: cfg.Store,
		refused: &refusals{tell: cfg.Refused}, limits: cfg.Limits, pace: newPace(cfg.Limits),
		measure: make(chan struct{}, 1), log: slog.New(said), said: said}
	g.meter = decorate.Meter(cfg.Store, func(d decorate.Done) {
		g.pace.pay(time.Now(), d.In+d.Out)
		if cfg.Done != nil {
			cfg.Done(d)
		}
	})
	g.guard = guard{store: g.meter, refused: g.refused, usage: &g.usage, codec: cfg.Codec}
	if cfg.Codec == nil {
		g.guard.codec = sync.OnceValues(format.NewCodec)
	}
	protocol := gatewayhttp.Config{Patience: cfg.Patience}
	if cfg.Memory != nil {
		protocol.Share = cfg.Memory.Share()
	}
	g.server = &http.Server{
		Handler:           g.admit(gatewayhttp.New(g.guard, g, protocol)),
		MaxHeaderBytes:    maxHeaderBytes,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	return g
}

// Run opens the port and serves until ctx ends, and then cuts off the requests under way. The VM
// repeats them to the next gateway.
func (g *Gateway) Run(ctx context.Context) error {
	defer func() {
		g.Revoke()
		// an error of the log can't be logged
		_ = g.said.Flush(context.WithoutCancel(ctx))
	}()
	listener := g.open(ctx)
	if listener == nil {
		return nil
	}
	close(g.ready)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := g.server.Serve(netutil.LimitListener(listener, maxConns))
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return errs.Wrap(errs.Unavailable, err, "serve the store gateway")
	})
	group.Go(func() error {
		g.measures(ctx)
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		g.leave()
		quiet, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		if g.server.Shutdown(quiet) == nil {
			return nil
		}
		return g.server.Close()
	})
	return group.Wait()
}

// open tries until the port is open; nil when ctx ended first.
func (g *Gateway) open(ctx context.Context) net.Listener {
	for ctx.Err() == nil {
		l, err := g.listen(ctx)
		if err == nil {
			return l
		}
		g.log.WarnContext(ctx, "store gateway could not be opened", "error", err)
		if backoff.Sleep(ctx, openRetry) != nil {
			return nil
		}
	}
	return nil
}

// Ready is closed once the port is open.
func (g *Gateway) Ready() <-chan struct{} { return g.ready }

// Grant admits the bearer of a.Token and nobody else. When it returns, no earlier token works any
// more. Granting the same access again changes nothing.
func (g *Gateway) Grant(a Access) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.grant != nil && g.grant.access.Token == a.Token && g.grant.access.Writable == a.Writable {
		return
	}
	g.revokeLocked()
	live, kill := context.WithCancel(context.Background())
	g.grant = &grant{access: a, live: live, kill: kill}
	if !a.Writable {
		return
	}
	g.usage.begin(a.DiskPath, g.limits.Quota(a.Disk.Size))
	g.remeasure()
}

// remeasure has the disk measured soon.
func (g *Gateway) remeasure() {
	select {
	case g.measure <- struct{}{}:
	default:
	}
}

// Closing lets the disk have more than its quota, so much as it takes to be closed, until the next
// grant.
func (g *Gateway) Closing() { g.usage.close() }

// Revoke admits nobody from now on, and cuts off the requests under way.
func (g *Gateway) Revoke() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.revokeLocked()
}

// leave cuts off the requests under way. Who had access until now keeps it: to be told that a token
// isn't known would be the end of a machine, whose worker is only being restarted.
func (g *Gateway) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left = g.grant != nil
	g.revokeLocked()
}

func (g *Gateway) hasLeft() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.left
}

func (g *Gateway) revokeLocked() {
	if g.grant != nil {
		g.grant.kill()
		g.grant = nil
	}
}

// refusals counts what the gateway turned away.
type refusals struct {
	n         atomic.Int64
	throttled atomic.Int64 // of n
	tell      func()       // nil: nobody is told
}

func (r *refusals) add() {
	r.n.Add(1)
	if r.tell != nil {
		r.tell()
	}
}

// Counts returns what the VM has asked of the store so far.
func (g *Gateway) Counts() Counts {
	s := g.meter.Snapshot()
	get, list := s[decorate.OpGet], s[decorate.OpList]
	absent, match := s[decorate.OpPutIfAbsent], s[decorate.OpPutIfMatch]
	return Counts{
		Reads: get.Requests + list.Requests, BytesRead: get.BytesOut,
		Writes: absent.Requests + match.Requests, BytesWritten: absent.BytesIn + match.BytesIn,
		Refused: g.refused.n.Load(), Throttled: g.refused.throttled.Load(),
		UsageCounts: g.usage.counts(),
	}
}

// admit puts the access of the request's token into its context, and ends the context when that
// access is revoked.
func (g *Gateway) admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		gr := g.opened(r)
		if gr == nil {
			next.ServeHTTP(w, r) // refused by Authorize, in the protocol's own words
			return
		}
		ctx, cancel := context.WithCancel(withAccess(r.Context(), &gr.access))
		defer cancel()
		defer context.AfterFunc(gr.live, cancel)()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func (g *Gateway) opened(r *http.Request) *grant {
	g.mu.Lock()
	gr := g.grant
	g.mu.Unlock()
	if gr == nil || !jsonhttp.SameToken(jsonhttp.Bearer(r), gr.access.Token) {
		return nil
	}
	return gr
}

// Authorize refuses who shows no good token, and what a good one may not do, before anything of a
// body is read. The guard around the store decides the same again, and looks at the body.
func (g *Gateway) Authorize(r *http.Request, op, key string, size int64) error {
	if a := accessOf(r.Context()); a != nil {
		if err := g.guard.check(r.Context(), op, key); err != nil {
			return err
		}
		if err := a.fits(key, size); err != nil {
			return g.guard.refuse(err)
		}
		if err := g.pace.wait(r.Context()); err != nil {
			if r.Context().Err() == nil {
				g.refused.throttled.Add(1)
			}
			return g.guard.refuse(err)
		}
		if op == gatewayhttp.OpPutIfAbsent {
			return g.withinQuota(r.Context(), size)
		}
		return nil
	}
	if g.hasLeft() {
		return errs.New(errs.Unavailable, "this store gateway has ended, with its worker").
			WithRemedy("ask again: the next worker's gateway answers")
	}
	g.refused.add()
	g.log.WarnContext(r.Context(), "store gateway refused a request without a good token", "op",
		op, "key", key)
	return errs.New(errs.Denied, "the store gateway doesn't know this token").
		WithRemedy("the machine was released from this VM, or another VM's token was used")
}

// withinQuota refuses what would be more than the disk's quota.
func (g *Gateway) withinQuota(ctx context.Context, size int64) error {
	err := g.usage.admit(int(size))
	if err == nil {
		return nil
	}
	g.log.WarnContext(ctx, "a disk is at its quota, and its machine waits", "error", err,
		"remedy", errs.RemedyOf(err))
	g.remeasure()
	return g.guard.refuse(err)
}
