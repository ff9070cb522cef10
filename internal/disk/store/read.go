package store

import (
	"context"
	"strings"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Get reads an object or a range of it.
func (c *Client) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	var obj blob.Object
	err := c.ask(ctx, c.cfg.Bound, c.begin(toRead, "read", key),
		func(ctx context.Context) (err error) {
			obj, err = c.TryGet(ctx, key, r)
			return err
		})
	c.counters.getBytes.Add(uint64(len(obj.Data)))
	return obj, err
}

// GetFixed is Get of an object that never changes. Where the first request is late it makes a
// second.
func (c *Client) GetFixed(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	var obj blob.Object
	err := c.ask(ctx, c.cfg.Bound, c.begin(toRead, "read", key),
		func(ctx context.Context) (err error) {
			obj, err = c.getHedged(ctx, key, r)
			return err
		})
	c.counters.getBytes.Add(uint64(len(obj.Data)))
	return obj, err
}

// GetExact reads a range of an object that never changes. Corrupt: the object is shorter than that.
func (c *Client) GetExact(ctx context.Context, key string, off, length int64) ([]byte, error) {
	obj, err := c.GetFixed(ctx, key, blob.Range{Offset: off, Length: length})
	if err != nil {
		return nil, err
	}
	if got := int64(len(obj.Data)); got != length {
		return nil, errs.New(errs.Corrupt, "%s: %d bytes at %d, want %d", key, got, off, length)
	}
	return obj.Data, nil
}

// Exists reports whether there is an object at key, by reading a byte of it.
func (c *Client) Exists(ctx context.Context, key string) (bool, error) {
	_, err := c.Get(ctx, key, blob.Range{Offset: 0, Length: 1})
	if errs.Is(err, errs.NotFound) {
		return false, nil
	}
	return err == nil, err
}

// TryGet makes one attempt at a read. An answer that is shorter than the object allows is
// Unavailable: it got lost on the way, and says nothing about what is stored.
func (c *Client) TryGet(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	c.counters.gets.Add(1)
	obj, err := c.store.Get(ctx, key, r)
	if err != nil {
		return obj, err
	}
	_, want, err := r.Resolve(obj.Size)
	if err != nil {
		return obj, errs.Wrap(errs.KindOf(err), err, "read %s", key)
	}
	if got := int64(len(obj.Data)); got != want {
		return blob.Object{}, errs.New(errs.Unavailable,
			"short read of %s: %d bytes of %d", key, got, want)
	}
	return obj, nil
}

// List hands over the objects whose keys begin with prefix and come after startAfter, in order,
// until yield returns false. It calls begin before each attempt: what earlier ones have yielded
// doesn't count.
func (c *Client) List(
	ctx context.Context, prefix, startAfter string, begin func(), yield func(blob.Entry) bool,
) error {
	r := c.begin(toRead, "list", prefix)
	return c.ask(ctx, c.cfg.Bound, r, func(ctx context.Context) error {
		begin()
		return c.tryList(ctx, prefix, startAfter, yield)
	})
}

// TryList makes one attempt to list what begins with a prefix, under a deadline of its own.
func (c *Client) TryList(ctx context.Context, prefix string, yield func(blob.Entry) bool) error {
	return c.once(ctx, func(ctx context.Context) error { return c.tryList(ctx, prefix, "", yield) })
}

func (c *Client) tryList(
	ctx context.Context, prefix, startAfter string, yield func(blob.Entry) bool,
) error {
	c.counters.lists.Add(1)
	return c.store.List(ctx, prefix, startAfter, yield)
}

// Names lists the keys that begin with a prefix, and returns them without it.
func (c *Client) Names(ctx context.Context, prefix string) ([]string, error) {
	var names []string
	err := c.List(ctx, prefix, "", func() { names = names[:0] }, func(e blob.Entry) bool {
		names = append(names, strings.TrimPrefix(e.Key, prefix))
		return true
	})
	return names, err
}
