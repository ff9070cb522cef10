package disk

import (
	"context"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// DestroyOptions is for disks with a log store.
type DestroyOptions struct {
	OpenLog OpenStore // nil: such a disk is refused as Unsupported
	Pool    string    // URL of the store that the disk is in; see ElsewhereLog
}

// Destroy removes a disk for good. A missing one is no error, so that it can be repeated after a crash. The
// owner sees to it that nobody has it attached: a writer that is left over is fenced by the missing head. Disks whose
// paths lie below this one's are left alone.
//
// Of a disk with a log store that is emptied first, while the head says where it is. Nobody can
// attach the disk from then on. A log store that can't be reached is an error, and so is one of a disk in another pool.
//
// Then go the head and the checkpoints, so that nobody attaches or forks the disk any more. A fork that was
// under way has registered itself by then, or will miss its checkpoint and fail; so has a reader its pin. What a
// registered fork or a reader may refer to stays, and is the collector's. That needs listings which show all that was stored before,
// as blob.Store promises: a collector's grace covers old ones, and nothing does here.
func Destroy(ctx context.Context, store blob.Store, path string, opts DestroyOptions) error {
	if err := checkPath(path); err != nil {
		return err
	}
	o := oneShot(store)
	h, _, err := o.loadHead(ctx, path)
	if err == nil && h.LogStore != nil {
		if err := destroyLog(ctx, h, path, opts); err != nil {
			return errs.Wrap(errs.KindOf(err), err, "destroy the log of disk %s", path)
		}
	} else if errs.Is(err, errs.Unavailable) || errs.Is(err, errs.Denied) {
		return err // what can't be decoded can be destroyed
	}
	if err := o.remove(ctx, headKey(path)); err != nil {
		return errs.Wrap(errs.KindOf(err), err, "destroy disk %s", path)
	}
	names, err := o.names(ctx, checkpointPrefix(path))
	for _, name := range names {
		if err == nil && ownKey("ckpt/"+name) {
			err = o.remove(ctx, checkpointKey(path, name))
		}
	}
	if err != nil {
		return errs.Wrap(errs.KindOf(err), err, "destroy the checkpoints of disk %s", path)
	}
	for _, users := range []string{refPrefix(path), pinPrefix(path)} {
		if left, err := o.names(ctx, users); err != nil || len(left) > 0 {
			return err
		}
	}
	rest, err := o.names(ctx, path+"/")
	if err != nil {
		return errs.Wrap(errs.KindOf(err), err, "list what is left of disk %s", path)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, name := range rest {
		if ownKey(name) && !strings.HasPrefix(name, "refs/") && !strings.HasPrefix(name, "pins/") { // one that came since is of a fork or a reader that fails
			g.Go(func() error { return o.remove(gctx, path+"/"+name) })
		}
	}
	if err := g.Wait(); err != nil {
		return errs.Wrap(errs.KindOf(err), err, "remove what is left of disk %s", path)
	}
	return nil
}

func (o *objects) remove(ctx context.Context, key string) error {
	return o.retry(ctx, o.bound, func(ctx context.Context) error { return o.store.Delete(ctx, key) })
}
