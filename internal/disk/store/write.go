package store

import (
	"bytes"
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// readBack is how much of an object is read to tell whose it is.
const readBack = 64 << 10

// Upload writes a log object, for as long as that takes. It is PutOnce without a bound, and tells
// the pace when the store took the object at once. reusable says that nobody reads body any more:
// after more attempts than one, a lost one may still be under way. spent is told where the time
// goes, as it goes; nil: nobody is.
func (c *Client) Upload(
	ctx context.Context, key string, body []byte, mine func([]byte) bool, spent *Spent,
) (reusable bool, err error) {
	attempts, err := c.putOnce(ctx, key, body, unbounded, mine, spent)
	if err != nil {
		return false, err
	}
	if attempts == 1 {
		c.pace.uploaded()
	}
	return attempts == 1, nil
}

// PutOnce writes a write-once object. The body is frozen: whatever becomes of one attempt, the next
// sends the same bytes. If something is there, mine decides by its first bytes whether it is this
// very write, whose response was lost. Conflict: another object is there.
func (c *Client) PutOnce(
	ctx context.Context, key string, body []byte, mine func([]byte) bool,
) error {
	_, err := c.putOnce(ctx, key, body, c.cfg.Bound, mine, nil)
	return err
}

// PutNew is PutOnce of a small document: it is this very write if it has the same bytes.
func (c *Client) PutNew(ctx context.Context, key string, body []byte) error {
	return c.PutOnce(ctx, key, body, beginsWith(body))
}

// putOnce also returns how many attempts there were.
func (c *Client) putOnce(
	ctx context.Context, key string, body []byte, bound time.Duration, mine func([]byte) bool,
	spent *Spent,
) (attempts int, err error) {
	r := c.begin(toWrite, "write", key)
	r.spent = spent
	err = c.ask(spent.within(ctx), bound, r, func(ctx context.Context) error {
		attempts++
		return c.tryPut(ctx, key, body)
	})
	if !errs.Is(err, errs.Conflict) {
		return attempts, err
	}
	head, gerr := c.Get(ctx, key, blob.Range{Length: min(int64(len(body)), readBack)})
	if gerr != nil {
		return attempts, errs.Wrap(errs.KindOf(gerr), gerr, "read back %s", key)
	}
	if mine(head.Data) {
		return attempts, nil
	}
	return attempts, err
}

// PutIfAbsent writes an object where there is none, and says nothing about whose it is that is
// there: Conflict may be of an earlier attempt.
func (c *Client) PutIfAbsent(ctx context.Context, key string, body []byte) error {
	r := c.begin(toWrite, "write", key)
	return c.ask(ctx, c.cfg.Bound, r, func(ctx context.Context) error {
		return c.tryPut(ctx, key, body)
	})
}

func (c *Client) tryPut(ctx context.Context, key string, body []byte) error {
	c.counters.puts.Add(1)
	c.counters.putBytes.Add(uint64(len(body)))
	_, err := c.store.PutIfAbsent(ctx, key, body)
	return err
}

// TrySwap makes one attempt to replace the version of an object that has the ETag match. Conflict:
// another version is there, which may be of an earlier attempt.
func (c *Client) TrySwap(
	ctx context.Context, key string, body []byte, match blob.ETag,
) (blob.ETag, error) {
	c.counters.swaps.Add(1)
	return c.store.PutIfMatch(ctx, key, body, match)
}

// Remove deletes an object. It is no error if there is none.
func (c *Client) Remove(ctx context.Context, key string) error {
	return c.Retry(ctx, func(ctx context.Context) error { return c.store.Delete(ctx, key) })
}

// beginsWith returns a check for PutOnce by content.
func beginsWith(body []byte) func([]byte) bool {
	return func(b []byte) bool { return bytes.HasPrefix(body, b) && len(b) > 0 }
}
