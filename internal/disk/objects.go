package disk

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// objects is the store as the disk uses it: every request is retried while the store is Unavailable, and
// every doubt about a write is settled by asking.
type objects struct {
	store     blob.Store
	opTimeout time.Duration // of one attempt
	bound     time.Duration // of all attempts together, where the caller says so; below zero: none
	inUse     atomic.Bool   // a device: what it asks for is worth waiting for a store that refuses us to be put right
	n         *counters

	patience *patience
	pace     *pace
	watch    *monitor // nil: nobody asks
	second   bool     // it is a disk's log store

	hedge hedge
	spawn func(func(context.Context)) bool // runs what outlives a call; nil: nothing does, and no read is hedged
}

// Pauses between attempts are drawn from zero to a limit that doubles with each.
const (
	firstBackoff  = 10 * time.Millisecond
	firstThrottle = 200 * time.Millisecond // instead, of a store that asks for fewer requests
	lastBackoff   = 2 * time.Second
)

func newObjects(store blob.Store, t Tuning) *objects {
	return &objects{store: store, opTimeout: t.OpTimeout, bound: t.StallTimeout, n: &counters{}, patience: &patience{}, pace: newPace(t.InFlight)}
}

// beside makes it the log store of a disk whose other store is main: they are watched, counted and waited for together,
// and each has a pace of its own.
func (o *objects) beside(main *objects) {
	o.second, o.n, o.patience, o.watch = true, main.n, main.patience, main.watch
}

// begin notes a request for the watch.
func (o *objects) begin(dir direction, what, key string) *request {
	if o.second {
		dir += secondStore
	}
	return o.watch.begin(dir, what, key)
}

// oneShot serves the functions that need no attachment, with default patience.
func oneShot(store blob.Store) *objects { return newObjects(store, Tuning{}.withDefaults(false)) }

// once makes one attempt under a deadline of its own. A store that doesn't answer in time is Unavailable.
func (o *objects) once(ctx context.Context, f func(context.Context) error) error {
	octx, cancel := context.WithTimeout(ctx, o.opTimeout)
	defer cancel()
	err := f(octx)
	if err != nil && octx.Err() != nil {
		return errs.Wrap(errs.Unavailable, err, "store request timed out or was cancelled")
	}
	return err
}

// retry is ask of something that is read.
func (o *objects) retry(ctx context.Context, bound time.Duration, f func(context.Context) error) error {
	return o.ask(ctx, bound, o.begin(toRead, "ask", "the store"), f)
}

const (
	// unbounded is a bound of requests that are repeated for as long as the disk is attached.
	unbounded time.Duration = 0
	// attachPatience is for a store that doesn't answer an attach, where an attached disk would wait for ever.
	attachPatience = time.Minute
)

// ask repeats f while it is Unavailable, until ctx ends or the store was waited for that long. A negative bound is
// none. Unbounded requests also wait for space, and for a store that refuses us to be put right; a disk that is in use
// waits for the latter with its reads, too.
func (o *objects) ask(ctx context.Context, bound time.Duration, r *request, f func(context.Context) error) error {
	w, limit := o.patience.start(), firstBackoff
	if bound < 0 && !o.inUse.Load() {
		bound = attachPatience
	}
	for {
		err := o.pace.wait(ctx)
		if err == nil {
			err = o.once(ctx, f)
		}
		if ctx.Err() != nil || !o.worthWaiting(err, bound, r.dir) {
			o.watch.end(r, ctx.Err() == nil && answered(err))
			return err
		}
		o.n.retries.Add(1)
		o.watch.failed(r, err)
		if after, ok := blob.ThrottledFor(err); ok {
			o.n.throttled.Add(1)
			o.pace.throttled(after)
			limit = max(limit, firstThrottle)
		}
		pause := rand.N(limit)
		if bound > 0 && w.spent()+pause > bound {
			o.watch.end(r, false)
			return errs.Wrap(errs.Unavailable, err, "the store did not answer for %v", bound).
				WithRemedy("check the object store and the way to it")
		}
		if serr := sleep(ctx, pause); serr != nil {
			o.watch.end(r, false)
			return err
		}
		limit = min(2*limit, lastBackoff)
	}
}

// worthWaiting reports whether an answer may be another one later.
func (o *objects) worthWaiting(err error, bound time.Duration, dir direction) bool {
	switch errs.KindOf(err) {
	case errs.Unavailable:
		return true
	case errs.Exhausted:
		return bound == unbounded
	case errs.Denied:
		return bound == unbounded || o.inUse.Load() && dir.reads()
	}
	return false
}

// answered reports whether the store did what it was asked for, or said why that can't be done.
func answered(err error) bool {
	return !errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.Exhausted) && !errs.Is(err, errs.Denied)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// get reads an object or a range of it.
func (o *objects) get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	var obj blob.Object
	err := o.ask(ctx, o.bound, o.begin(toRead, "read", key), func(ctx context.Context) (err error) {
		o.n.gets.Add(1)
		obj, err = o.getWhole(ctx, key, r)
		return err
	})
	o.n.getBytes.Add(uint64(len(obj.Data)))
	return obj, err
}

// getWhole makes one attempt at a read. An answer that is shorter than the object allows got lost on the way
// and says nothing about what is stored: it must not be taken for a broken object.
func (o *objects) getWhole(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	obj, err := o.store.Get(ctx, key, r)
	if err != nil {
		return obj, err
	}
	_, want, err := r.Resolve(obj.Size)
	if err != nil {
		return obj, errs.Wrap(errs.KindOf(err), err, "read %s", key)
	}
	if int64(len(obj.Data)) != want {
		return blob.Object{}, errs.New(errs.Unavailable, "short read of %s: %d bytes of %d", key, len(obj.Data), want)
	}
	return obj, nil
}

// getExact reads a range and refuses a short answer.
func (o *objects) getExact(ctx context.Context, key string, off, length int64) ([]byte, error) {
	obj, err := o.getFixed(ctx, key, blob.Range{Offset: off, Length: length})
	if err != nil {
		return nil, err
	}
	if int64(len(obj.Data)) != length {
		return nil, errs.New(errs.Corrupt, "%s: %d bytes at %d, want %d", key, len(obj.Data), off, length)
	}
	return obj.Data, nil
}

// putOnce writes a write-once object. The body is frozen: whatever becomes of one attempt, the next sends
// the same bytes. If something is there, mine decides by its first bytes whether it is this very write,
// whose response was lost. It reports how many attempts there were; after one, nobody reads body any more.
func (o *objects) putOnce(ctx context.Context, key string, body []byte, bound time.Duration, mine func([]byte) bool) (int, error) {
	attempts := 0
	err := o.ask(ctx, bound, o.begin(toWrite, "write", key), func(ctx context.Context) error {
		attempts++
		o.n.puts.Add(1)
		o.n.putBytes.Add(uint64(len(body)))
		_, err := o.store.PutIfAbsent(ctx, key, body)
		return err
	})
	if !errs.Is(err, errs.Conflict) {
		return attempts, err
	}
	head, gerr := o.get(ctx, key, blob.Range{Offset: 0, Length: min(int64(len(body)), 64<<10)})
	if gerr != nil {
		return attempts, errs.Wrap(errs.KindOf(gerr), gerr, "read back %s", key)
	}
	if mine(head.Data) {
		return attempts, nil
	}
	return attempts, err
}

// isSame returns a check for putOnce by content.
func isSame(body []byte) func([]byte) bool {
	return func(b []byte) bool { return bytes.HasPrefix(body, b) && len(b) > 0 }
}

// putNew writes a small document once. Conflict means that another one is there.
func (o *objects) putNew(ctx context.Context, key string, body []byte) error {
	_, err := o.putOnce(ctx, key, body, o.bound, isSame(body))
	return err
}

// loadHead reads and decodes a disk's head.
func (o *objects) loadHead(ctx context.Context, path string) (*format.Head, blob.ETag, error) {
	obj, err := o.get(ctx, headKey(path), blob.All())
	if errs.Is(err, errs.NotFound) {
		return nil, "", errs.Wrap(errs.NotFound, err, "no disk at %s", path).
			WithRemedy("check the path, or create the disk")
	}
	if err != nil {
		return nil, "", errs.Wrap(errs.KindOf(err), err, "read head of %s", path)
	}
	h, err := format.DecodeHead(obj.Data)
	if err != nil {
		return nil, "", errs.Wrap(errs.KindOf(err), err, "disk %s", path)
	}
	return h, obj.ETag, nil
}

// swapHead replaces the head that has the ETag match by next, which carries a fresh nonce. A lost response
// is settled by reading back. On Conflict it returns the head that is there instead, with its ETag.
func (o *objects) swapHead(ctx context.Context, path string, next *format.Head, match blob.ETag) (*format.Head, blob.ETag, error) {
	body, err := format.Encode(next)
	if err != nil {
		return nil, "", err
	}
	cur, etag := next, blob.ETag("")
	err = o.ask(ctx, o.bound, o.begin(toWrite, "swap", headKey(path)), func(ctx context.Context) error {
		o.n.swaps.Add(1)
		var perr error
		if etag, perr = o.store.PutIfMatch(ctx, headKey(path), body, match); perr == nil {
			cur = next
			return nil
		}
		if !errs.Is(perr, errs.Conflict) && !errs.Is(perr, errs.Unavailable) {
			return perr
		}
		o.n.gets.Add(1)
		obj, gerr := o.getWhole(ctx, headKey(path), blob.All())
		if gerr != nil {
			return gerr
		}
		if cur, gerr = format.DecodeHead(obj.Data); gerr != nil {
			return gerr
		}
		etag = obj.ETag
		switch {
		case cur.Nonce == next.Nonce:
			return nil
		case etag == match: // unchanged so far; our lost attempt may still arrive, and is the same bytes
			return errs.Wrap(errs.Unavailable, perr, "swap head of %s", path)
		}
		return errs.New(errs.Conflict, "head of %s changed", path)
	})
	return cur, etag, err
}
