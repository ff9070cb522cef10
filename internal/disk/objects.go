package disk

import (
	"bytes"
	"context"
	"math/rand/v2"
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
	bound     time.Duration // of all attempts together, where the caller says so
	n         counters

	hedge hedge
	spawn func(func(context.Context)) bool // runs what outlives a call; nil: nothing does, and no read is hedged
}

const (
	firstBackoff = 5 * time.Millisecond
	lastBackoff  = time.Second
)

func newObjects(store blob.Store, t Tuning) *objects {
	return &objects{store: store, opTimeout: t.OpTimeout, bound: t.StallTimeout}
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

// retry repeats f while it is Unavailable, until ctx ends or, with a bound above zero, that time is over.
// Without a bound it also waits for space.
func (o *objects) retry(ctx context.Context, bound time.Duration, f func(context.Context) error) error {
	start, delay := time.Now(), firstBackoff
	for {
		err := o.once(ctx, f)
		if !errs.Is(err, errs.Unavailable) && (bound > 0 || !errs.Is(err, errs.Exhausted)) {
			return err
		}
		if ctx.Err() != nil {
			return err
		}
		o.n.retries.Add(1)
		wait := delay/2 + rand.N(delay)
		if bound > 0 && time.Since(start)+wait > bound {
			return errs.Wrap(errs.Unavailable, err, "the store did not answer for %v", bound).
				WithRemedy("check the object store and the way to it")
		}
		if serr := sleep(ctx, wait); serr != nil {
			return err
		}
		delay = min(2*delay, lastBackoff)
	}
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
	err := o.retry(ctx, o.bound, func(ctx context.Context) (err error) {
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
	err := o.retry(ctx, bound, func(ctx context.Context) error {
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
	err = o.retry(ctx, o.bound, func(ctx context.Context) error {
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
