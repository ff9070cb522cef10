package store

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/backoff"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Config says how long a client waits, and how much it does at a time.
type Config struct {
	InFlight  int           // most uploads at a time
	OpTimeout time.Duration // of one attempt
	Bound     time.Duration // of all attempts at one request together; below zero: none
}

// Client makes the requests of one disk. Safe for concurrent use, once it is set up: LogStoreOf,
// Watch and Hedge are called before the first request.
type Client struct {
	store    blob.Store
	cfg      Config
	inUse    atomic.Bool // what a device asks for is worth waiting for a refusal to be put right
	counters *counters

	waiting *waitBudget
	pace    *pace
	monitor *monitor // nil: not monitored
	second  bool     // it is a disk's log store

	hedge hedge
	spawn func(func(context.Context)) bool // runs what outlives a call; nil: no read is hedged
}

// Pauses between attempts are drawn from zero to a limit that doubles with each.
const (
	firstBackoff  = 10 * time.Millisecond
	firstThrottle = 200 * time.Millisecond // instead, of a store that asks for fewer requests
	lastBackoff   = 2 * time.Second
)

const (
	// unbounded is a bound of requests that are repeated for as long as the disk is attached.
	unbounded time.Duration = 0
	// attachPatience is instead of no bound until a disk is in use: nobody waits for ever for an
	// attach.
	attachPatience = time.Minute
)

// New returns a client of a store. Nothing is monitored or hedged yet.
func New(store blob.Store, cfg Config) *Client {
	return &Client{store: store, cfg: cfg, counters: &counters{}, waiting: &waitBudget{},
		pace: newPace(cfg.InFlight)}
}

// Watch begins to notice when the store stalls: when it completes none of its pending requests for
// that long. disk names the disk in logs. The client calls probe when nothing is pending during a
// stall, so that only probe can show its end. It must make a small request in the background; ofLog
// says whether of the log store.
func (c *Client) Watch(after time.Duration, disk string, log *slog.Logger, probe func(ofLog bool)) {
	c.monitor = newMonitor(after, disk, log, probe)
}

// LogStoreOf makes this the client of the log store at url, of a disk whose other store is main's.
// Both are watched, counted and waited for together, and each has a pace of its own.
func (c *Client) LogStoreOf(main *Client, url string) {
	c.second, c.counters, c.waiting, c.monitor = true, main.counters, main.waiting, main.monitor
	c.monitor.nameLog(url)
}

// Hedge lets the client ask a second time for reads that are late. spawn runs a function in the
// background, and reports false when it is too late for that.
func (c *Client) Hedge(spawn func(func(context.Context)) bool) { c.spawn = spawn }

// InUse says that a device is served from now on. Reads then wait, too, for a store that refuses
// access to be put right.
func (c *Client) InUse() { c.inUse.Store(true) }

// Uploads returns how many uploads may be under way now, at least 1.
func (c *Client) Uploads() int { return c.pace.uploads() }

// begin notes a request for the monitor.
func (c *Client) begin(dir direction, what, key string) *request {
	if c.second {
		dir += secondStore
	}
	return c.monitor.begin(dir, what, key)
}

// once makes one attempt under a deadline of its own. A store that doesn't answer in time is
// Unavailable.
func (c *Client) once(ctx context.Context, f func(context.Context) error) error {
	octx, cancel := context.WithTimeout(ctx, c.cfg.OpTimeout)
	defer cancel()
	err := f(octx)
	if err != nil && octx.Err() != nil {
		return errs.Wrap(errs.Unavailable, err, "store request timed out or was cancelled")
	}
	return err
}

// Retry repeats f while it is Unavailable, up to the client's bound. f makes one attempt, by the
// methods that begin with Try.
func (c *Client) Retry(ctx context.Context, f func(context.Context) error) error {
	return c.RetryFor(ctx, c.cfg.Bound, f)
}

// RetryFor is Retry with a bound of its own.
func (c *Client) RetryFor(
	ctx context.Context, bound time.Duration, f func(context.Context) error,
) error {
	return c.ask(ctx, bound, c.begin(toRead, "ask", "the store"), f)
}

// ask repeats f while it is Unavailable, until ctx ends or the store was waited for that long. A
// negative bound is none. Unbounded requests also wait for space, and for a store that refuses
// access to be put right. For the latter a disk that is in use waits with its reads, too.
func (c *Client) ask(
	ctx context.Context, bound time.Duration, r *request, f func(context.Context) error,
) error {
	w, limit := c.waiting.start(), firstBackoff
	if bound < 0 && !c.inUse.Load() {
		bound = attachPatience
	}
	for {
		err := c.pace.wait(ctx, r.spent)
		if err == nil {
			began := r.spent.begin()
			err = c.once(ctx, f)
			r.spent.tried(began)
		}
		if ctx.Err() != nil || !c.worthWaiting(err, bound, r.dir) {
			c.monitor.end(r, ctx.Err() == nil && answered(err))
			return err
		}
		c.counters.retries.Add(1)
		c.monitor.failed(r, err)
		after, throttled := blob.ThrottledFor(err)
		if throttled {
			c.counters.throttled.Add(1)
			c.pace.throttled(after)
			limit = max(limit, firstThrottle)
		}
		pause := rand.N(limit)
		if bound > 0 && w.spent()+pause > bound {
			c.monitor.end(r, false)
			return errs.Wrap(errs.Unavailable, err, "the store did not answer for %v", bound).
				WithRemedy("check the object store and the way to it")
		}
		began := time.Now()
		serr := backoff.Sleep(ctx, pause)
		r.spent.paused(began, throttled)
		if serr != nil {
			c.monitor.end(r, false)
			return err
		}
		limit = min(2*limit, lastBackoff)
	}
}

// worthWaiting reports whether the same request may have another answer later.
func (c *Client) worthWaiting(err error, bound time.Duration, dir direction) bool {
	switch errs.KindOf(err) {
	case errs.Unavailable:
		return true
	case errs.Exhausted:
		return bound == unbounded
	case errs.Denied:
		return bound == unbounded || c.inUse.Load() && dir.reads()
	}
	return false
}

// answered reports whether the store did what it was asked for, or said why that can't be done.
func answered(err error) bool {
	return !errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.Exhausted) &&
		!errs.Is(err, errs.Denied)
}
