package disk

import (
	"cmp"
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/store"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// ForkOptions describes the child.
type ForkOptions struct {
	ID         string // the owner's name for it; the path's last element if empty
	Generation uint64 // what the child's head starts at; attaches need at least this
	Size       int64  // bytes; 0: the checkpoint's size; may be larger, never smaller
	Key        KEK    // wraps the child's keys; nil: a fork of a disk in the clear is in the clear
	ParentKey  KEK    // of an encrypted parent; nil: Key is
	// where the child's log is, if in a second store, which OpenLog opens; the parent's log store
	// is none of the child's
	LogURL  string
	OpenLog OpenStore
	Pool    string // URL of the store that both are in, as in CreateOptions
	// Limit is how long it may take from the child's registration on; default a minute. It must be
	// below the grace of any collector, which takes a reference whose child has no head for
	// garbage.
	Limit time.Duration
}

// forkLimit is the default of ForkOptions.Limit.
const forkLimit = time.Minute

// Fork makes a disk at child that begins as a checkpoint of the disk at path, in the same pool. It
// copies no data: the child's map refers to the parent's objects. It takes four round trips: the
// checkpoint, the child's reference at its parent, the child's head, and a check that the
// checkpoint is still there. Of an encrypted parent it also reads the head, for the keys.
//
// A fork of an encrypted disk is encrypted, under a key of its own for what it writes. A fork of
// one in the clear is encrypted if there is a Key, and what it inherits stays as it is.
//
// Errors: NotFound (no disk or checkpoint), Exists (something at child), Invalid, Denied (no key,
// or a wrong one), Unavailable. A fork that took longer than its Limit is Unavailable, too, and
// nothing of it is left.
func Fork(
	ctx context.Context, store blob.Store, path, checkpoint, child string, opts ForkOptions,
) (*format.Head, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	if err := checkNewPath(child); err != nil {
		return nil, err
	}
	client := oneShot(store)
	c, err := loadCheckpoint(ctx, client, path, checkpoint)
	if err != nil {
		return nil, err
	}
	h, err := childHead(c, path, child, opts)
	if err != nil {
		return nil, err
	}
	if err := encryptChild(ctx, client, c, path, h, &opts); err != nil {
		return nil, err
	}
	begun := time.Now()
	ref, err := putRef(ctx, client, path, child, checkpoint)
	if err != nil {
		return nil, err
	}
	done, err := newLogStore(ctx, h, opts.LogURL, opts.Pool, opts.OpenLog)
	if err != nil {
		return nil, err
	}
	if err := putHead(ctx, client, child, h, done); err != nil {
		return nil, err
	}
	err = confirmFork(ctx, client, c, path, h, ref)
	switch took := elapsed(begun); {
	case errs.Is(err, errs.NotFound):
		return nil, takeBackFork(ctx, client, child, h, err)
	case err != nil:
		return nil, errs.Wrap(errs.KindOf(err), err, "whether fork %s is whole is not known",
			child).
			WithRemedy("destroy %s, and fork again", child)
	case took > cmp.Or(opts.Limit, forkLimit):
		// A collector may have taken the child for given up, because its head took so long, and be
		// about to remove its reference.
		return nil, takeBackFork(ctx, client, child, h,
			errs.New(errs.Unavailable, "fork %s took %v, longer than is safe beside a collector",
				child, took.Round(time.Second)).
				WithRemedy("fork again when the store is quicker"))
	}
	return h, nil
}

// takeBackFork removes the head of a fork that failed, and returns why it has. Its checkpoint is
// gone, or it took too long, so that what it refers to may be gone too. A head that somebody has
// attached since stays.
func takeBackFork(
	ctx context.Context, client *store.Client, child string, h *format.Head, why error,
) error {
	now, _, err := client.LoadHead(ctx, child)
	switch {
	case errs.Is(err, errs.NotFound):
		return why
	case err == nil && now.UID == h.UID && now.Epoch == h.Epoch && now.State == h.State:
		err = client.Remove(ctx, headKey(child))
	}
	if err != nil {
		return errs.Wrap(errs.KindOf(why), why, "%s could not be taken back (%v)", child, err).
			WithRemedy("destroy %s, and fork another checkpoint", child)
	}
	return why
}

// confirmFork returns nil if what was forked was there all the time, and the store has what was
// written. Whoever removes the checkpoint looks for references after that, so that one of the two
// sees the other.
func confirmFork(
	ctx context.Context, client *store.Client, c *format.Checkpoint, path string,
	h *format.Head, ref []byte,
) error {
	child := h.Lineage[0].Path
	head, err := format.Encode(h)
	if err != nil {
		return err
	}
	for again := true; again && err == nil; {
		var g errgroup.Group
		g.Go(func() (err error) {
			again, err = forkShown(ctx, client, path, child, head, ref)
			return err
		})
		err = sameCheckpoint(ctx, client, c, path, child)
		if serr := g.Wait(); err == nil {
			err = serr
		}
	}
	return err
}

// sameCheckpoint returns nil if a checkpoint that was read before is still there.
func sameCheckpoint(
	ctx context.Context, client *store.Client, c *format.Checkpoint, path, child string,
) error {
	again, err := loadCheckpoint(ctx, client, path, c.Name)
	if err == nil && again.Nonce != c.Nonce {
		err = errs.New(errs.NotFound, "checkpoint %s was replaced by another", c.Name)
	}
	switch {
	case errs.Is(err, errs.NotFound):
		return errs.Wrap(errs.NotFound, err, "disk %s was forked from a checkpoint that is gone",
			child).
			WithRemedy("fork another checkpoint")
	case err != nil:
		return errs.Wrap(errs.KindOf(err), err,
			"look for the checkpoint again that %s was forked from", child)
	}
	return nil
}

func childHead(c *format.Checkpoint, path, child string, opts ForkOptions) (*format.Head, error) {
	size := opts.Size
	if size == 0 {
		size = c.Size
	}
	if err := checkSize(size); err != nil {
		return nil, err
	}
	if size < c.Size {
		return nil, errs.New(errs.Invalid, "a fork of %d bytes of a disk of %d", size, c.Size).
			WithRemedy("forks can grow but not shrink")
	}
	if len(c.Lineage) >= format.MaxLineage {
		return nil, errs.New(errs.Exhausted, "disk %s is the end of a line of %d forks", path,
			len(c.Lineage)).
			WithRemedy("fork an earlier one, or copy")
	}
	h := newHead(child, opts.ID, size)
	h.Generation = opts.Generation
	h.Lineage = append([]format.Ancestor{{Path: child, UID: h.UID}}, c.Lineage...)
	h.Parent = &format.Parent{Path: path, UID: c.UID, Checkpoint: c.Name}
	if c.Root != nil {
		root := *c.Root
		root.Lineage++
		h.Root = &root
	}
	return h, nil
}

// encryptChild gives the child its keys, if it is to have any.
func encryptChild(
	ctx context.Context, client *store.Client, c *format.Checkpoint, path string,
	h *format.Head, opts *ForkOptions,
) error {
	if !c.Encrypted() {
		if opts.Key == nil {
			return nil
		}
		return encrypt(ctx, h, nil, opts.Key)
	}
	parentKey := opts.ParentKey
	if parentKey == nil {
		parentKey = opts.Key
	}
	keys, err := checkpointKeys(ctx, client, c, path, parentKey)
	if err != nil {
		return err
	}
	if opts.Key == nil {
		return encrypt(ctx, h, keys, parentKey)
	}
	return encrypt(ctx, h, keys, opts.Key)
}

// Register writes the reference of a fork that has lost it; the checkpoint may be empty if nobody
// knows any more which it was. Exists if there is one of another checkpoint.
func Register(ctx context.Context, store blob.Store, path, child, checkpoint string) error {
	if err := checkPath(path); err != nil {
		return err
	}
	if err := checkPath(child); err != nil {
		return err
	}
	_, err := putRef(ctx, oneShot(store), path, child, checkpoint)
	return err
}

// putRef registers a child at its parent, and returns the reference. It accepts one of an earlier
// attempt at the same child.
func putRef(
	ctx context.Context, client *store.Client, path, child, checkpoint string,
) ([]byte, error) {
	body, err := format.Encode(&format.Ref{Version: format.Version, Child: child,
		Checkpoint: checkpoint, Created: now()})
	if err != nil {
		return nil, err
	}
	key := refKey(path, child)
	err = client.PutOnce(ctx, key, body, func(got []byte) bool {
		r, err := format.DecodeRef(got)
		return err == nil && r.Child == child && r.Checkpoint == checkpoint
	})
	if errs.Is(err, errs.Conflict) {
		return nil, errs.Wrap(errs.Exists, err, "%s was forked from another checkpoint of %s",
			child, path).
			WithRemedy("choose another path for the fork")
	}
	if err != nil {
		return nil, errs.Wrap(errs.KindOf(err), err, "register fork %s", child)
	}
	return body, nil
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
