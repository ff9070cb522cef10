package simtest

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// staleness is how old a listing may be. The collector's grace is longer.
const staleness = 500 * time.Millisecond

// bug is a rule of the protocol that is broken on purpose.
type bug int

const (
	noBug           bug = iota
	dropFence           // a fence is acknowledged, shown, and not kept
	skipNonce           // a writer takes any object in its slot for its own
	ackBeforePut        // a log object is acknowledged before it is stored
	collectFence        // the collector takes fences for garbage
	collectForeign      // the collector doesn't look at forks
	collectOnce         // the collector deletes what a single mark didn't find
	skipPins            // the collector doesn't look at pins
	restoreUnpinned     // a restore's pin is acknowledged and not kept
	trustStale          // a journal is believed whatever session the head names
	ackUnsynced         // the journal's device acknowledges a sync before it is made
	forgetClaim         // a recovery doesn't note in the journal which session it is about to be
	ignoreBound         // a flush is acknowledged however old what the store lacks is
	destroyForked       // a disk is destroyed without a look at its forks
	destroyPinned       // a disk is destroyed without a look at its pins
	believeAcks         // what the store only said that it has stored is shown to who wrote it
	fenceElsewhere      // a fence is written to the disk's own store, where its log isn't
	bugs
)

// ofJournal reports whether only disks of mode bounded have what is broken.
func (b bug) ofJournal() bool { return b >= trustStale && b <= ignoreBound }

func (b bug) String() string {
	return [...]string{"none", "drop the fence", "skip the nonce check",
		"acknowledge before the PUT", "collect a fence",
		"collect a fork's segment", "delete after one mark", "skip pins", "restore without a pin",
		"trust a stale journal", "acknowledge before the journal's sync", "recover without a claim",
		"ignore the bound",
		"destroy under a fork", "destroy under a reader", "believe what a store says",
		"fence in the wrong store"}[b]
}

// pool is the store that all clients of a run share.
type pool struct {
	*memblob.Store
	bug  bug
	logs *pool // the log store; nil: logs are in the pool
	main *pool // of a log store: the pool

	mu      sync.Mutex
	created []creation      // for old listings
	settled map[string]bool // keys and folders, see settle
	counts  counts
	lies    bool
	lost    map[string][]byte // what was acknowledged and not stored
	retried map[string][]byte // what of it was written again, or was about to be
	// some of it was written again by its writer since anything was last brought back
	mended  bool
	feigned map[string][]byte // fences that aren't there, and are shown all the same
}

func newPool(b bug) *pool {
	return &pool{Store: memblob.New(), bug: b, settled: map[string]bool{},
		lost: map[string][]byte{}, retried: map[string][]byte{}, feigned: map[string][]byte{}}
}

// addLogs makes it a pool whose disks have their logs in a second store, with faults of its own.
func (p *pool) addLogs() {
	p.logs = newPool(p.bug)
	p.logs.main = p
}

type counts struct{ requests, faults, lies int }

// total returns what was counted in both stores.
func (p *pool) total() counts {
	n := p.counts
	if p.logs != nil {
		l := p.logs.counts
		n.requests, n.faults, n.lies = n.requests+l.requests, n.faults+l.faults, n.lies+l.lies
	}
	return n
}

type creation struct {
	at  time.Time
	key string
}

func (p *pool) note(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.created = append(p.created, creation{time.Now(), key})
}

// settle says that what was asked for a key, or below it, and has not happened yet never will. Who
// removes a thing does it long after it was made: a repetition of that which comes after the
// removal would bring it back, and what it refers to is gone by then only because a grace here is
// shorter than a request can be on its way.
func (p *pool) settle(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settled[key] = true
}

// repeat runs what comes late.
func (p *pool) repeat(key string, f func() error) {
	p.mu.Lock()
	never := p.settled[key] || p.settled[path.Dir(key)]
	p.mu.Unlock()
	if !never {
		_ = f()
	}
}

// client is one process's way to the store, with faults of its own.
type client struct {
	p      *pool
	seed   uint64
	rate   int           // faults per 256 requests; 0: none
	slow   time.Duration // at most this long it takes until a request is sent
	noPins bool          // pins are acknowledged, listed to it, and not kept
	fresh  bool          // listings are never old

	mu     sync.Mutex
	nth    map[string]int // requests by kind and key
	dead   bool
	pinned blob.Entry // with noPins
	logs   *client    // the same process's way to the log store
}

func (p *pool) client(seed uint64, rate int) *client {
	return &client{p: p, seed: seed, rate: rate, nth: map[string]int{}}
}

// kill makes every later request fail. What is under way may still happen.
func (c *client) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
	if c.logs != nil {
		c.logs.kill()
	}
}

// openLog opens the log store.
func (c *client) openLog(context.Context, string) (blob.Store, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.logs == nil {
		c.logs = c.p.logs.client(c.seed+1, c.rate)
		c.logs.slow, c.logs.dead, c.logs.fresh = c.slow, c.dead, c.fresh
	}
	return c.logs, nil
}

type fault int

const (
	pass   fault = iota
	refuse       // 409, 500 or 503: nothing happened
	lose         // it happened, the answer is lost
	late         // it fails now and happens later
	twice        // it happens, and once more later
	hang         // no answer until the client gives up, then it happens
	short        // a read that is cut, a listing that is old
	faults
	stop // as hang, and it never happens
)

// judge decides what becomes of a request. It depends on the seed and on which request for a key it
// is, not on the order in which different requests come.
func (c *client) judge(op, key string) (fault, *rand.Rand) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := op + " " + key
	c.nth[id]++
	h := fnv.New64a()
	fmt.Fprint(h, c.seed, id, c.nth[id])
	rng := rand.New(rand.NewPCG(h.Sum64(), c.seed))
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.p.counts.requests++
	if c.dead {
		return refuse, rng
	}
	if rng.IntN(256) >= c.rate {
		return pass, rng
	}
	c.p.counts.faults++
	f := refuse + fault(rng.IntN(int(faults-refuse)))
	if f == hang && rng.IntN(4) > 0 { // takes half a minute each
		f = lose
	}
	return f, rng
}

// do runs one request. f must be safe to run twice, also long after.
func (c *client) do(ctx context.Context, op, key string,
	f func() error) (fault, *rand.Rand, error) {
	v, rng := c.judge(op, key)
	// nobody would see it
	if again := op != "get" && op != "list"; !again && (v == late || v == twice) {
		v = lose
	} else if !again && v == hang {
		v = stop
	}
	return v, rng, c.suffer(ctx, v, rng, op, key, f)
}

func (c *client) suffer(ctx context.Context, v fault, rng *rand.Rand, op, key string,
	f func() error) error {
	what := op + " " + key
	repeat := func() { c.p.repeat(key, f) }
	if op == "delete" {
		repeat = func() { _ = f() }
	}
	wait := time.Duration(rng.IntN(8)) * time.Millisecond
	if c.slow > 0 {
		wait += time.Duration(rng.Int64N(int64(c.slow)))
	}
	// a name, while the head's map moves on
	if c.rate > 0 && strings.Contains(key, "/ckpt/") && rng.IntN(4) == 0 {
		wait += time.Duration(rng.Int64N(int64(grace)))
	}
	later := time.Duration(1+rng.IntN(1<<(1+rng.IntN(12)))) * time.Millisecond
	gone := errs.New(errs.Unavailable, "simulated fault %d of %s", v, what)
	select {
	case <-ctx.Done():
		return errs.Wrap(errs.Unavailable, ctx.Err(), "%s", what)
	case <-time.After(wait):
	}
	switch v {
	case refuse:
		return gone
	case lose:
		_ = f()
		return gone
	case late, twice:
		time.AfterFunc(later, repeat)
		if v == late {
			return gone
		}
	case hang, stop:
		select {
		case <-ctx.Done():
		case <-time.After(4 * time.Second): // not everybody has a limit
		}
		if v == hang {
			time.AfterFunc(later, repeat)
		}
		return gone
	}
	return f()
}

func (c *client) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	var out blob.Object
	v, rng, err := c.do(ctx, "get", key, func() (err error) {
		out, err = c.p.Store.Get(context.Background(), key, r)
		if errs.Is(err, errs.NotFound) && c.shown(key) {
			out, err = c.p.feignedFence(key, r)
		}
		return err
	})
	if v == short && err == nil && len(out.Data) > 0 {
		out.Data = out.Data[:rng.IntN(len(out.Data))]
	}
	return out, err
}

func (c *client) mutate(ctx context.Context, op, key string,
	f func() (blob.ETag, error)) (blob.ETag, error) {
	var mu sync.Mutex // a late repetition may run beside us
	var tag blob.ETag
	_, _, err := c.do(ctx, op, key, func() error {
		t, err := f()
		if err == nil && op == "absent" {
			c.p.note(key)
		}
		mu.Lock()
		defer mu.Unlock()
		tag = t
		return err
	})
	mu.Lock()
	defer mu.Unlock()
	return tag, err
}

func (c *client) Put(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	body = append([]byte(nil), body...)
	return c.mutate(ctx, "put", key,
		func() (blob.ETag, error) { return c.p.Store.Put(context.Background(), key, body) })
}

func (c *client) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	body = append([]byte(nil), body...)
	put := func() (blob.ETag, error) {
		return c.p.Store.PutIfAbsent(context.Background(), key, body)
	}
	if c.noPins && strings.Contains(key, "/pins/") {
		put = func() (blob.ETag, error) { return "dropped", nil }
		c.mu.Lock()
		c.pinned = blob.Entry{Key: key, Size: int64(len(body))}
		c.mu.Unlock()
	}
	if c.rate > 0 && c.p.lies {
		honest := put
		id := "lie " + key
		c.mu.Lock()
		c.nth[id]++
		h := fnv.New64a()
		fmt.Fprint(h, c.seed, id, c.nth[id])
		c.mu.Unlock()
		lie := c.p.lie(key, body, rand.New(rand.NewPCG(h.Sum64(), c.seed)))
		put = func() (blob.ETag, error) {
			if !lie {
				return honest()
			}
			if c.p.bug == believeAcks {
				c.p.feign(key, body)
			}
			return "lie", nil
		}
	}
	if strings.Contains(key, "/log/") && c.p.bug != noBug {
		h, err := format.DecodeLogHeader(body)
		fence := err == nil && h.IsFence()
		switch {
		case c.p.bug == fenceElsewhere && fence && c.p.main != nil:
			put = func() (blob.ETag, error) {
				c.p.feign(key, body)
				return c.p.main.Store.PutIfAbsent(context.Background(), key, body)
			}
		case c.p.bug == dropFence && fence:
			put = func() (blob.ETag, error) {
				c.p.feign(key, body)
				return "dropped", nil
			}
		case c.p.bug == ackBeforePut && !fence:
			return c.putLater(ctx, key, put)
		case c.p.bug == skipNonce && !fence:
			tag, err := c.mutate(ctx, "absent", key, put)
			if errs.Is(err, errs.Conflict) {
				err = nil
			}
			return tag, err
		}
	}
	return c.mutate(ctx, "absent", key, put)
}

// feign shows a fence from now on that isn't there.
func (p *pool) feign(key string, body []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.feigned[key] = body
}

func (c *client) shown(key string) bool {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	return c.p.feigned[key] != nil
}

func (p *pool) feignedFence(key string, r blob.Range) (blob.Object, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	body := p.feigned[key]
	off, n, err := r.Resolve(int64(len(body)))
	if err != nil {
		return blob.Object{}, err
	}
	return blob.Object{Data: body[off : off+n], Size: int64(len(body)), ETag: "feigned"}, nil
}

// putLater acknowledges at once and stores some time later, unless the client died.
func (c *client) putLater(ctx context.Context, key string,
	put func() (blob.ETag, error)) (blob.ETag, error) {
	_, rng := c.judge("absent", key)
	time.AfterFunc(time.Duration(rng.IntN(20))*time.Millisecond, func() {
		c.mu.Lock()
		dead := c.dead
		c.mu.Unlock()
		if !dead {
			_, _ = put()
		}
	})
	return "early", ctx.Err()
}

func (c *client) PutIfMatch(ctx context.Context, key string, body []byte,
	match blob.ETag) (blob.ETag, error) {
	body = append([]byte(nil), body...)
	return c.mutate(ctx, "match", key, func() (blob.ETag, error) {
		return c.p.Store.PutIfMatch(context.Background(), key, body, match)
	})
}

func (c *client) Delete(ctx context.Context, key string) error {
	_, err := c.mutate(ctx, "delete", key,
		func() (blob.ETag, error) { return "", c.p.Store.Delete(context.Background(), key) })
	return err
}

func (c *client) List(ctx context.Context, prefix, after string,
	yield func(blob.Entry) bool) error {
	var list []blob.Entry
	v, rng, err := c.do(ctx, "list", prefix, func() error {
		list = nil
		return c.p.Store.List(context.Background(), prefix, after, func(e blob.Entry) bool {
			list = append(list, e)
			return true
		})
	})
	if v == short && !c.fresh {
		list = c.p.before(list, time.Duration(rng.Int64N(int64(staleness))))
	}
	if c.p.lies && !c.fresh && c.rate > 0 && rng.IntN(16) == 0 {
		list = leaveOut(list, rng)
	}
	c.mu.Lock()
	if c.pinned.Key == prefix && prefix != "" {
		list = append(list, c.pinned)
	}
	c.mu.Unlock()
	for _, e := range list {
		if err != nil || !yield(e) {
			break
		}
	}
	return err
}

// before takes out of a listing what was created within age. What was deleted since is not put
// back: a delete that comes late shows that as well.
func (p *pool) before(list []blob.Entry, age time.Duration) []blob.Entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	fresh := map[string]bool{}
	for i := len(p.created) - 1; i >= 0 && time.Since(p.created[i].at) <= age; i-- {
		fresh[p.created[i].key] = true
	}
	return slices.DeleteFunc(list, func(e blob.Entry) bool { return fresh[e.Key] })
}

func (c *client) Close() error { return nil }

var _ blob.Store = (*client)(nil)
