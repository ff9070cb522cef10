package disk

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/store"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Checkpoints, references of forks and pins keep others' hands off what they refer to. Who must
// heed them finds them by listing. So whoever makes one sees that a listing shows it, before
// anybody builds on it.

// look reads the head, and beside it waits until the store shows the name. again says that the name
// was written once more, so that the caller must look again.
func (n *naming) look(ctx context.Context) (h *format.Head, again bool, err error) {
	var g errgroup.Group
	g.Go(func() (err error) {
		again, err = n.store.Shown(ctx, checkpointKey(n.path, n.name), n.body)
		if errs.Is(err, errs.Conflict) { // by a late attempt of ours, which replace tells
			err = nil
		}
		return err
	})
	h, _, err = n.store.LoadHead(ctx, n.path)
	if serr := g.Wait(); err == nil {
		err = serr
	}
	return h, again, err
}

// forkShown returns when the store has shown the head and the reference of a new fork. again says
// that one of them was written once more.
func forkShown(
	ctx context.Context, client *store.Client, path, child string, head, ref []byte,
) (again bool, err error) {
	var g errgroup.Group
	var lostRef bool
	g.Go(func() (err error) {
		lostRef, err = client.Shown(ctx, refKey(path, child), ref)
		if errs.Is(err, errs.Conflict) { // of an earlier attempt at the same fork
			err = nil
		}
		return err
	})
	lostHead, err := client.Present(ctx, headKey(child), head)
	if rerr := g.Wait(); err == nil {
		err = rerr
	}
	return lostRef || lostHead, err
}
