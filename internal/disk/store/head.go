package store

import (
	"context"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func headKey(path string) string { return format.Key{Kind: format.KeyHead}.In(path) }

// LoadHead reads the head of the disk at path. NotFound: there is no disk.
func (c *Client) LoadHead(ctx context.Context, path string) (*format.Head, blob.ETag, error) {
	obj, err := c.Get(ctx, headKey(path), blob.All())
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

// SwapHead replaces the head that has the ETag match by next, which carries a fresh nonce. It
// settles a lost response by reading back. On Conflict it returns the head that is there instead,
// with its ETag.
func (c *Client) SwapHead(
	ctx context.Context, path string, next *format.Head, match blob.ETag,
) (cur *format.Head, etag blob.ETag, err error) {
	body, err := format.Encode(next)
	if err != nil {
		return nil, "", err
	}
	cur = next
	r := c.begin(toWrite, "swap", headKey(path))
	err = c.ask(ctx, c.cfg.Bound, r, func(ctx context.Context) error {
		var perr error
		if etag, perr = c.TrySwap(ctx, headKey(path), body, match); perr == nil {
			cur = next
			return nil
		}
		if !errs.Is(perr, errs.Conflict) && !errs.Is(perr, errs.Unavailable) {
			return perr
		}
		obj, gerr := c.TryGet(ctx, headKey(path), blob.All())
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
		case etag == match:
			// unchanged so far; the lost attempt may still arrive, with the same bytes
			return errs.Wrap(errs.Unavailable, perr, "swap head of %s", path)
		}
		return errs.New(errs.Conflict, "head of %s changed", path)
	})
	return cur, etag, err
}
