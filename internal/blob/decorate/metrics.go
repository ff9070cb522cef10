package decorate

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
)

// Op is a kind of request.
type Op string

// The kinds of request.
const (
	OpGet         Op = "get"
	OpPut         Op = "put"
	OpPutIfAbsent Op = "put_if_absent"
	OpPutIfMatch  Op = "put_if_match"
	OpDelete      Op = "delete"
	OpList        Op = "list"
)

// Counts is what was asked of a store by one kind of request since it was wrapped.
type Counts struct {
	Requests int64         `json:"requests"`
	Errors   int64         `json:"errors"`    // of any kind, also NotFound and Conflict
	BytesIn  int64         `json:"bytes_in"`  // written to the store, by requests that succeeded
	BytesOut int64         `json:"bytes_out"` // read from the store
	Time     time.Duration `json:"time_ns"`   // sum over all requests
}

// Snapshot holds the counts of each kind of request.
type Snapshot map[Op]Counts

// Total returns the sum over all kinds of request.
func (s Snapshot) Total() Counts {
	var t Counts
	for _, c := range s {
		t.Requests += c.Requests
		t.Errors += c.Errors
		t.BytesIn += c.BytesIn
		t.BytesOut += c.BytesOut
		t.Time += c.Time
	}
	return t
}

// Done is one request that was answered.
type Done struct {
	Op   Op
	Took time.Duration
	In   int // bytes written to the store; 0 unless it succeeded
	Out  int // bytes read from it; 0 unless it succeeded
	Err  error
}

// Metered counts what passes through to a store. It is safe for concurrent use.
type Metered struct {
	store                                         blob.Store
	done                                          func(Done)
	get, put, putIfAbsent, putIfMatch, drop, list counter
}

var _ blob.Store = (*Metered)(nil)

// Meter wraps a store in counters, and tells done of each request that was answered. Done is called
// concurrently, and must not wait; nil: nobody is told.
func Meter(s blob.Store, done func(Done)) *Metered {
	if done == nil {
		done = func(Done) {}
	}
	return &Metered{store: s, done: done}
}

type counter struct{ requests, errors, in, out, nanos atomic.Int64 }

func (m *Metered) count(c *counter, start time.Time, d Done) {
	d.Took = time.Since(start)
	c.requests.Add(1)
	c.nanos.Add(int64(d.Took))
	if d.Err != nil {
		d.In, d.Out = 0, 0
		c.errors.Add(1)
	}
	c.in.Add(int64(d.In))
	c.out.Add(int64(d.Out))
	m.done(d)
}

func (c *counter) counts() Counts {
	return Counts{
		Requests: c.requests.Load(), Errors: c.errors.Load(),
		BytesIn: c.in.Load(), BytesOut: c.out.Load(), Time: time.Duration(c.nanos.Load()),
	}
}

// Snapshot returns the counts so far.
func (m *Metered) Snapshot() Snapshot {
	return Snapshot{
		OpGet: m.get.counts(), OpPut: m.put.counts(), OpPutIfAbsent: m.putIfAbsent.counts(),
		OpPutIfMatch: m.putIfMatch.counts(), OpDelete: m.drop.counts(), OpList: m.list.counts(),
	}
}

// Get implements blob.Store.
func (m *Metered) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	start := time.Now()
	o, err := m.store.Get(ctx, key, r)
	m.count(&m.get, start, Done{Op: OpGet, Out: len(o.Data), Err: err})
	return o, err
}

// Put implements blob.Store.
func (m *Metered) Put(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	start := time.Now()
	etag, err := m.store.Put(ctx, key, body)
	m.count(&m.put, start, Done{Op: OpPut, In: len(body), Err: err})
	return etag, err
}

// PutIfAbsent implements blob.Store.
func (m *Metered) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	start := time.Now()
	etag, err := m.store.PutIfAbsent(ctx, key, body)
	m.count(&m.putIfAbsent, start, Done{Op: OpPutIfAbsent, In: len(body), Err: err})
	return etag, err
}

// PutIfMatch implements blob.Store.
func (m *Metered) PutIfMatch(
	ctx context.Context, key string, body []byte, match blob.ETag,
) (blob.ETag, error) {
	start := time.Now()
	etag, err := m.store.PutIfMatch(ctx, key, body, match)
	m.count(&m.putIfMatch, start, Done{Op: OpPutIfMatch, In: len(body), Err: err})
	return etag, err
}

// Delete implements blob.Store.
func (m *Metered) Delete(ctx context.Context, key string) error {
	start := time.Now()
	err := m.store.Delete(ctx, key)
	m.count(&m.drop, start, Done{Op: OpDelete, Err: err})
	return err
}

// List implements blob.Store. A listing counts as one request, however many pages a driver fetches.
func (m *Metered) List(
	ctx context.Context, prefix, startAfter string, yield func(blob.Entry) bool,
) error {
	start := time.Now()
	err := m.store.List(ctx, prefix, startAfter, yield)
	m.count(&m.list, start, Done{Op: OpList, Err: err})
	return err
}

// Close implements blob.Store.
func (m *Metered) Close() error { return m.store.Close() }
