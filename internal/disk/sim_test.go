package disk_test

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// sim is an object store in memory that several clients use, each with faults of its own.
type sim struct {
	mu   sync.Mutex
	objs map[string]simObject
	tags int
	// a broken store: fences are acknowledged, shown to who asks for them, and not kept
	dropFence  bool
	dropped    map[string]simObject
	overwrites bool // a broken store: what may be written once may be written again
	history    []string
}

type simObject struct {
	body []byte
	etag blob.ETag
}

func newSim() *sim { return &sim{objs: map[string]simObject{}, dropped: map[string]simObject{}} }

// verdict is what happens to one request.
type verdict int

const (
	pass      verdict = iota
	refuse            // 503, nothing happened
	loseReply         // it happened, and the answer is lost
	late              // it fails now, and happens when the client is released
	dieBefore         // the client is dead from here on
	dieAfter          // it happens, then the client is dead
	forget            // a broken store: it says yes, and nothing happened
	halve             // a broken store: it says yes, and keeps the first half of what it was given
)

// simClient is one process's way to the store.
type simClient struct {
	s *sim

	mu      sync.Mutex
	judge   func(n int, op, key string) verdict // nil: all pass
	n       int
	counts  map[string]int
	dead    bool
	died    chan struct{}
	pending []func()
	latency time.Duration
}

func (s *sim) client() *simClient {
	return &simClient{s: s, died: make(chan struct{}), counts: map[string]int{}}
}

// release lets the late requests happen.
func (c *simClient) release() {
	c.mu.Lock()
	p := c.pending
	c.pending = nil
	c.mu.Unlock()
	for _, f := range p {
		f()
	}
}

func (c *simClient) setJudge(f func(n int, op, key string) verdict) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.judge = f
}

func (c *simClient) requests() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func (c *simClient) count(op string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[op]
}

// do runs one request under its verdict.
func (c *simClient) do(ctx context.Context, op, key string, f func() error) error {
	return c.doEither(ctx, op, key, f, f)
}

// doEither is do of what is another thing when it is halved.
func (c *simClient) doEither(ctx context.Context, op, key string, f, half func() error) error {
	c.mu.Lock()
	c.n++
	c.counts[op]++
	v := pass
	if c.judge != nil {
		v = c.judge(c.n, op, key)
	}
	if c.dead {
		v = dieBefore
	}
	if (v == dieBefore || v == dieAfter) && !c.dead {
		c.dead = true
		defer close(c.died)
	}
	if v == late {
		c.pending = append(c.pending, func() { _ = f() })
	}
	latency := c.latency
	c.mu.Unlock()
	if latency > 0 {
		select {
		case <-time.After(latency):
		case <-ctx.Done():
			return errs.Wrap(errs.Unavailable, ctx.Err(), "sim %s %s", op, key)
		}
	}
	gone := errs.New(errs.Unavailable, "sim: %s %s", op, key)
	switch v {
	case refuse, late, dieBefore:
		return gone
	case forget:
		return nil
	case halve:
		return half()
	case loseReply, dieAfter:
		_ = f()
		return gone
	}
	if err := ctx.Err(); err != nil {
		return errs.Wrap(errs.Unavailable, err, "sim")
	}
	return f()
}

func (c *simClient) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	var out blob.Object
	err := c.do(ctx, "get", key, func() error {
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
		o, ok := c.s.objs[key]
		if !ok {
			o, ok = c.s.dropped[key]
		}
		if !ok {
			return errs.New(errs.NotFound, "no %s", key)
		}
		size := int64(len(o.body))
		if r.Offset < 0 || r.Offset > size {
			return errs.New(errs.Invalid, "range %+v of %d", r, size)
		}
		end := size
		if r.Length >= 0 {
			end = min(size, r.Offset+r.Length)
		}
		out = blob.Object{Data: append([]byte(nil), o.body[r.Offset:end]...),
			ETag: o.etag, Size: size}
		return nil
	})
	return out, err
}

func (c *simClient) put(ctx context.Context, op, key string, body []byte,
	cond func(simObject, bool) error) (blob.ETag, error) {
	var shared blob.ETag
	body = append([]byte(nil), body...)
	store := func(body []byte) error {
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
		old, ok := c.s.objs[key]
		if err := cond(old, ok); err != nil {
			return err
		}
		c.s.tags++
		tag := blob.ETag(fmt.Sprint("t", c.s.tags))
		shared = tag
		if c.s.dropFence && strings.Contains(key, "/log/") {
			if h, err := format.DecodeLogHeader(body); err == nil && h.IsFence() {
				c.s.dropped[key] = simObject{body, tag}
				return nil
			}
		}
		c.s.objs[key] = simObject{body, tag}
		c.s.history = append(c.s.history, op+" "+key)
		return nil
	}
	err := c.doEither(ctx, op, key, func() error { return store(body) },
		func() error { return store(body[:len(body)/2]) })
	c.s.mu.Lock() // a late request may still write it
	defer c.s.mu.Unlock()
	return shared, err
}

func (c *simClient) Put(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	return c.put(ctx, "put", key, body, func(simObject, bool) error { return nil })
}

func (c *simClient) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	return c.put(ctx, "absent", key, body, func(_ simObject, ok bool) error {
		if ok && !c.s.overwrites {
			return errs.New(errs.Conflict, "%s exists", key)
		}
		return nil
	})
}

func (c *simClient) PutIfMatch(ctx context.Context, key string, body []byte,
	match blob.ETag) (blob.ETag, error) {
	return c.put(ctx, "match", key, body, func(o simObject, ok bool) error {
		if !ok {
			return errs.New(errs.NotFound, "no %s", key)
		}
		if o.etag != match {
			return errs.New(errs.Conflict, "%s changed", key)
		}
		return nil
	})
}

func (c *simClient) Delete(ctx context.Context, key string) error {
	return c.do(ctx, "delete", key, func() error {
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
		delete(c.s.objs, key)
		return nil
	})
}

func (c *simClient) List(ctx context.Context, prefix, after string,
	yield func(blob.Entry) bool) error {
	var list []blob.Entry
	err := c.do(ctx, "list", prefix, func() error {
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
		for k, o := range c.s.objs {
			if strings.HasPrefix(k, prefix) && k > after {
				list = append(list, blob.Entry{Key: k, Size: int64(len(o.body))})
			}
		}
		return nil
	})
	sort.Slice(list, func(i, j int) bool { return list[i].Key < list[j].Key })
	for _, e := range list {
		if !yield(e) {
			break
		}
	}
	return err
}

func (c *simClient) Close() error { return nil }

var _ blob.Store = (*simClient)(nil)

// corrupt flips one byte of every object whose key contains part.
func (s *sim) corrupt(part string, at int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for k, o := range s.objs {
		if strings.Contains(k, part) && len(o.body) > at {
			b := append([]byte(nil), o.body...)
			b[len(b)-1-at] ^= 0x40
			s.objs[k] = simObject{b, o.etag}
			n++
		}
	}
	return n
}

func (s *sim) keys(part string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ks []string
	for k := range s.objs {
		if strings.Contains(k, part) {
			ks = append(ks, k)
		}
	}
	sort.Strings(ks)
	return ks
}

func testCtx(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // a hang, not a slow host
	t.Cleanup(cancel)
	return ctx
}
