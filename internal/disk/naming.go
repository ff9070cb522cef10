package disk

import (
	"bytes"
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/store"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const maxMovedMaps = 8 // times that a head's map may move while it is given a name

// naming is the making of one checkpoint: put, and then end or confirm.
type naming struct {
	store      *store.Client
	path, name string
	// why a head that moved must not be named instead; then there is no checkpoint
	mine func(*format.Head) error

	made *format.Checkpoint // by put; nil if that failed
	body []byte
	err  error // of put
}

// put writes the name for the map that h has. h was the head a moment ago, or becomes it meanwhile.
func (n *naming) put(ctx context.Context, h *format.Head) {
	n.made, n.body, n.err = putCheckpoint(ctx, n.store, n.path, n.name, h)
}

// end returns the checkpoint. failed says why the head has not become what put was told; nil: it
// has.
func (n *naming) end(ctx context.Context, failed error) (*format.Checkpoint, error) {
	switch {
	case failed == nil:
		return n.confirm(ctx)
	case n.made == nil:
		return nil, failed
	case errs.Is(failed, errs.Unavailable):
		return nil, n.unsure(failed)
	}
	return nil, n.takeBack(ctx, failed)
}

// unsure returns the error of a checkpoint that may have been made or not. If it is there it stays,
// since its map is whole. A removal that the store delays could take the next checkpoint of that
// name.
func (n *naming) unsure(err error) error {
	return errs.Wrap(errs.KindOf(err), err,
		"checkpoint %s of %s may have been made or not", n.name, n.path).
		WithRemedy("look with sluice disk info, and make another when the store answers")
}

// confirm returns the checkpoint once the store shows its name and the head still has the map that
// is named. If the head has another map, what the checkpoint refers to may be on its way to be
// deleted. Then it is replaced by one of the map that the head has now.
func (n *naming) confirm(ctx context.Context) (*format.Checkpoint, error) {
	if n.err != nil {
		return nil, n.err
	}
	for range maxMovedMaps {
		h, again, err := n.look(ctx)
		if errs.Is(err, errs.NotFound) {
			return nil, n.takeBack(ctx, err)
		}
		if err != nil {
			return nil, n.unsure(err)
		}
		if again {
			continue
		}
		if sameRoot(h.Root, n.made.Root) {
			return n.made, nil
		}
		if err := n.mine(h); err != nil {
			return nil, n.takeBack(ctx, err)
		}
		if err := n.replace(ctx, h); err != nil {
			return nil, err
		}
	}
	return nil, n.takeBack(ctx,
		errs.New(errs.Unavailable, "the map of disk %s moves too fast to be named", n.path))
}

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

func sameRoot(a, b *format.RootRef) bool { return a == b || a != nil && b != nil && *a == *b }

// takeBack removes the checkpoint, which was not reported made, and returns why.
func (n *naming) takeBack(ctx context.Context, why error) error {
	if err := n.store.Remove(ctx, checkpointKey(n.path, n.name)); err != nil {
		return errs.Wrap(errs.KindOf(why), why,
			"checkpoint %s of %s is of no use and could not be removed (%v)", n.name, n.path, err).
			WithRemedy("remove it: sluice disk checkpoint rm")
	}
	return why
}

// replace puts a checkpoint of h in the place of the one that was put before.
func (n *naming) replace(ctx context.Context, h *format.Head) error {
	made, body, err := newCheckpoint(n.name, h)
	if err != nil {
		return err
	}
	key := checkpointKey(n.path, n.name)
	err = n.store.Retry(ctx, func(ctx context.Context) error {
		obj, err := n.store.TryGet(ctx, key, blob.All())
		switch {
		case err != nil:
			return err
		case bytes.Equal(obj.Data, body):
			return nil // a lost answer of ours
		case !bytes.Equal(obj.Data, n.body):
			return errs.New(errs.Conflict,
				"checkpoint %s of %s was replaced meanwhile", n.name, n.path)
		}
		_, err = n.store.TrySwap(ctx, key, body, obj.ETag)
		if errs.Is(err, errs.Conflict) { // by a late attempt of ours
			err = errs.Wrap(errs.Unavailable, err, "checkpoint %s of %s", n.name, n.path)
		}
		return err
	})
	if err == nil {
		n.made, n.body = made, body
	}
	return err
}

// newCheckpoint returns a checkpoint of a head's map, and how it is stored.
func newCheckpoint(name string, h *format.Head) (*format.Checkpoint, []byte, error) {
	c := &format.Checkpoint{Version: format.Version, Name: name, UID: h.UID, Nonce: newNonce(),
		Size: h.Size,
		Mode: h.Mode, Root: h.Root, Lineage: h.Lineage, Created: now()}
	if h.Encryption != nil {
		c.Features = []string{format.FeatureEncryption}
	}
	body, err := format.Encode(c)
	return c, body, err
}

func putCheckpoint(
	ctx context.Context, client *store.Client, path, name string, h *format.Head,
) (*format.Checkpoint, []byte, error) {
	c, body, err := newCheckpoint(name, h)
	if err != nil {
		return nil, nil, err
	}
	err = client.PutNew(ctx, checkpointKey(path, name), body)
	switch {
	case errs.Is(err, errs.Conflict):
		return nil, nil, errs.Wrap(errs.Exists, err, "disk %s has a checkpoint %q", path, name).
			WithRemedy("choose another name")
	case err != nil:
		return nil, nil, errs.Wrap(errs.KindOf(err), err, "checkpoint %s", path)
	}
	return c, body, nil
}
