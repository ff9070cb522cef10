package disk

import (
	"bytes"
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Checkpoints, references of forks and pins keep others' hands off what they refer to, and who must heed them finds them by
// listing. So whoever makes one sees that a listing shows it, before anybody builds on it.

// shown returns when a listing shows a document that the store has acknowledged. One that isn't there is written again, and
// then again says so: what was seen before the call may not hold any more. Where nobody may list, a reading must do.
// Conflict: another document is there.
func (o *objects) shown(ctx context.Context, key string, body []byte) (again bool, err error) {
	err = o.ask(ctx, o.bound, o.begin(toRead, "list", key), func(ctx context.Context) error {
		o.n.lists.Add(1)
		listed := false
		err := o.store.List(ctx, key, "", func(e blob.Entry) bool {
			listed = listed || e.Key == key && e.Size == int64(len(body))
			return e.Key < key
		})
		if listed || errs.Is(err, errs.Unavailable) {
			return err
		}
		blind := errs.Is(err, errs.Denied)
		o.n.gets.Add(1)
		obj, err := o.getWhole(ctx, key, blob.All())
		switch {
		case errs.Is(err, errs.NotFound):
			again = true
			return o.writeAgain(ctx, key, body, obj, err)
		case err != nil:
			return err
		case bytes.Equal(obj.Data, body) && blind:
			return nil
		case bytes.Equal(obj.Data, body):
			return errs.New(errs.Unavailable, "the store has %s and doesn't list it", key).
				WithRemedy("don't trust this store or what is before it: its listings lack what it has")
		case !isPartOf(obj, body):
			return errs.New(errs.Conflict, "%s was replaced meanwhile", key)
		}
		again = true
		return o.writeAgain(ctx, key, body, obj, nil)
	})
	return again, err
}

// look reads the head, and beside it sees that the name is shown. again says that it wasn't, and is to be looked at once more.
func (n *naming) look(ctx context.Context) (h *format.Head, again bool, err error) {
	var g errgroup.Group
	g.Go(func() (err error) {
		again, err = n.o.shown(ctx, checkpointKey(n.path, n.name), n.body)
		if errs.Is(err, errs.Conflict) { // by a late attempt of ours, which replace tells
			err = nil
		}
		return err
	})
	h, _, err = n.o.loadHead(ctx, n.path)
	if serr := g.Wait(); err == nil {
		err = serr
	}
	return h, again, err
}

// forkShown sees that the store has the head of a new fork, and shows its reference. again says that one of them was written
// once more.
func (o *objects) forkShown(ctx context.Context, path, child string, head, ref []byte) (again bool, err error) {
	var g errgroup.Group
	var lostRef, lostHead bool
	g.Go(func() (err error) {
		lostRef, err = o.shown(ctx, refKey(path, child), ref)
		if errs.Is(err, errs.Conflict) { // of an earlier attempt at the same fork
			err = nil
		}
		return err
	})
	err = o.ask(ctx, o.bound, o.begin(toRead, "prove", headKey(child)), func(ctx context.Context) error {
		o.n.gets.Add(1)
		obj, err := o.getWhole(ctx, headKey(child), blob.Range{Offset: 0, Length: 1})
		if errs.Is(err, errs.NotFound) {
			lostHead = true
			return o.writeAgain(ctx, headKey(child), head, obj, err)
		}
		return err
	})
	if rerr := g.Wait(); err == nil {
		err = rerr
	}
	return lostRef || lostHead, err
}
