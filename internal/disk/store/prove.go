package store

import (
	"bytes"
	"context"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// What a store says is not what it did. A write that was acknowledged may not have been made, and a
// listing may lack what is there. Whoever builds on an object has the store show it first. See
// docs/decisions/0021-proof-of-what-is-stored.md.

// Checkpoints, references of forks and pins keep others' hands off what they refer to, and are
// found by listing. Whoever makes one sees that a listing shows it (Shown) before anybody builds on
// it.

// proofPrefix is what of an object is compared: it has the nonce.
const proofPrefix = format.LogFixedLen

// Prove returns when the store has shown that it has an object which it had acknowledged, written
// once and under a nonce. It writes the object again if it isn't there, and puts it in its own
// place if it was cut. Conflict: another one is there. A store that goes on acknowledging what it
// doesn't keep has stalled, and the stall says so.
func (c *Client) Prove(ctx context.Context, key string, body []byte) error {
	r := c.begin(toWrite, "prove", key)
	r.shows = true
	first := blob.Range{Length: min(int64(len(body)), proofPrefix)}
	return c.ask(ctx, c.cfg.Bound, r, func(ctx context.Context) error {
		obj, err := c.TryGet(ctx, key, first)
		if err == nil && obj.Size == int64(len(body)) && beginsWith(body)(obj.Data) {
			return nil
		}
		if err != nil && !errs.Is(err, errs.NotFound) {
			return err
		}
		return c.writeAgain(ctx, key, body, obj, err)
	})
}

// Present returns when the store has shown any object at key. It writes the body again if there is
// none, and then again says so: what was seen before the call may not hold any more.
func (c *Client) Present(ctx context.Context, key string, body []byte) (again bool, err error) {
	r := c.begin(toRead, "prove", key)
	err = c.ask(ctx, c.cfg.Bound, r, func(ctx context.Context) error {
		obj, err := c.TryGet(ctx, key, blob.Range{Offset: 0, Length: 1})
		if errs.Is(err, errs.NotFound) {
			again = true
			return c.writeAgain(ctx, key, body, obj, err)
		}
		return err
	})
	return again, err
}

// Shown returns when a listing shows a document that the store has acknowledged. It writes one that
// isn't there again, and then again says so: what was seen before the call may not hold any more.
// Where nobody may list, a reading must do. Conflict: another document is there.
func (c *Client) Shown(ctx context.Context, key string, body []byte) (again bool, err error) {
	r := c.begin(toRead, "list", key)
	err = c.ask(ctx, c.cfg.Bound, r, func(ctx context.Context) error {
		listed := false
		err := c.tryList(ctx, key, "", func(e blob.Entry) bool {
			listed = listed || e.Key == key && e.Size == int64(len(body))
			return e.Key < key
		})
		if listed || errs.Is(err, errs.Unavailable) {
			return err
		}
		blind := errs.Is(err, errs.Denied)
		obj, err := c.TryGet(ctx, key, blob.All())
		switch {
		case errs.Is(err, errs.NotFound):
			again = true
			return c.writeAgain(ctx, key, body, obj, err)
		case err != nil:
			return err
		case bytes.Equal(obj.Data, body) && blind:
			return nil
		case bytes.Equal(obj.Data, body):
			return errs.New(errs.Unavailable, "the store has %s and doesn't list it", key).
				WithRemedy("don't trust this store or what is before it: its listings lack what " +
					"it has")
		case !isPartOf(obj, body):
			return errs.New(errs.Conflict, "%s was replaced meanwhile", key)
		}
		again = true
		return c.writeAgain(ctx, key, body, obj, nil)
	})
	return again, err
}

// writeAgain makes one attempt to write an object that the store lacks, or has a part of. It never
// returns nil: what became of it is looked at like the first.
func (c *Client) writeAgain(
	ctx context.Context, key string, body []byte, obj blob.Object, missing error,
) error {
	what := "lacks"
	var err error
	if missing != nil {
		err = c.tryPut(ctx, key, body)
	} else {
		what = "has cut"
		c.counters.puts.Add(1)
		c.counters.putBytes.Add(uint64(len(body)))
		if !isPartOf(obj, body) {
			return errs.New(errs.Conflict,
				"%s is another's, although the store had acknowledged this one", key)
		}
		_, err = c.store.PutIfMatch(ctx, key, body, obj.ETag)
	}
	switch {
	case err == nil:
		c.counters.lost.Add(1)
		c.monitor.lost(key, what)
	case !errs.Is(err, errs.Conflict) && !errs.Is(err, errs.NotFound):
		// it came late, or the reading was old
		return err
	}
	return errs.New(errs.Unavailable, "the store acknowledged %s and %s it", key, what).
		WithRemedy("don't trust this store or what is before it: it loses what it says it has " +
			"stored")
}

// isPartOf reports whether what is stored is the beginning of a body: an object of ours that was
// cut. Nobody writes an empty one.
func isPartOf(obj blob.Object, body []byte) bool {
	return obj.Size < int64(len(body)) && (len(obj.Data) == 0 || beginsWith(body)(obj.Data))
}
