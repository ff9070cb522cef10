package disk

import (
	"bytes"
	"context"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Checkpoint names the disk's present content: everything written before the call is in it. It moves
// metadata only. Exists if the name is taken.
func (d *Disk) Checkpoint(ctx context.Context, name string) (*format.Checkpoint, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if err := d.flushStore(ctx); err != nil {
		return nil, err
	}
	wrote, err := d.writeMap(ctx, nil)
	if err == nil && !wrote {
		err = d.revalidate(ctx) // a fenced session must not name an old state
	}
	if err != nil {
		return nil, err
	}
	// With the turn, so that the head's map stays until it is named.
	if err := d.takeTurn(ctx); err != nil {
		return nil, err
	}
	defer d.giveTurn()
	h := d.Head()
	return d.o.nameMap(ctx, d.path, name, &h, d.checkHead)
}

// CheckpointClosed names the content of a disk that nobody has attached. Conflict if its head is open.
func CheckpointClosed(ctx context.Context, store blob.Store, path, name string) (*format.Checkpoint, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	o := oneShot(store)
	h, _, err := o.loadHead(ctx, path)
	if err != nil {
		return nil, err
	}
	if h.State != format.StateClosed {
		return nil, errs.New(errs.Conflict, "disk %s is open: %q attached it with generation %d", path, h.Holder, h.Generation).
			WithRemedy("checkpoint it where it is attached, or close it first (after a crash: attach and close)")
	}
	return o.nameMap(ctx, path, name, h, func(h *format.Head) error {
		if h.State == format.StateClosed {
			return nil
		}
		return errs.New(errs.Conflict, "disk %s was attached meanwhile, by %q", path, h.Holder).WithRemedy("checkpoint it where it is attached")
	})
}

const maxMovedMaps = 8 // times that a head's map may move while it is given a name

// nameMap writes a checkpoint of the map that h has, and then looks whether the head still has it: if not, what
// the checkpoint refers to may be on its way to be deleted, and it is replaced by one of the map there is now. mine
// returns why a head that moved must not be named instead; then there is no checkpoint.
func (o *objects) nameMap(ctx context.Context, path, name string, h *format.Head, mine func(*format.Head) error) (*format.Checkpoint, error) {
	c, body, err := o.putCheckpoint(ctx, path, name, h)
	if err != nil {
		return nil, err
	}
	for range maxMovedMaps {
		h, _, err := o.loadHead(ctx, path)
		if errs.Is(err, errs.NotFound) {
			return nil, o.takeBack(ctx, path, name, err)
		}
		if err != nil {
			return nil, err
		}
		if sameRoot(h.Root, c.Root) {
			return c, nil
		}
		if err := mine(h); err != nil {
			return nil, o.takeBack(ctx, path, name, err)
		}
		if c, body, err = o.replaceCheckpoint(ctx, path, name, h, body); err != nil {
			return nil, err
		}
	}
	return nil, o.takeBack(ctx, path, name, errs.New(errs.Unavailable, "the map of disk %s moves too fast to be named", path))
}

func sameRoot(a, b *format.RootRef) bool { return a == b || a != nil && b != nil && *a == *b }

// takeBack removes a checkpoint that was not reported made, and returns why.
func (o *objects) takeBack(ctx context.Context, path, name string, why error) error {
	if err := o.remove(ctx, checkpointKey(path, name)); err != nil {
		return errs.Wrap(errs.KindOf(why), why, "checkpoint %s of %s is of no use and could not be removed (%v)", name, path, err).
			WithRemedy("remove it: sluice disk checkpoint rm")
	}
	return why
}

// replaceCheckpoint puts a checkpoint of h in the place of one that was not reported made, whose body was old.
func (o *objects) replaceCheckpoint(ctx context.Context, path, name string, h *format.Head, old []byte) (*format.Checkpoint, []byte, error) {
	c, body, err := newCheckpoint(name, h)
	if err != nil {
		return nil, nil, err
	}
	err = o.retry(ctx, o.bound, func(ctx context.Context) error {
		o.n.gets.Add(1)
		obj, err := o.getWhole(ctx, checkpointKey(path, name), blob.All())
		switch {
		case err != nil:
			return err
		case bytes.Equal(obj.Data, body):
			return nil // a lost answer of ours
		case !bytes.Equal(obj.Data, old):
			return errs.New(errs.Conflict, "checkpoint %s of %s was replaced meanwhile", name, path)
		}
		_, err = o.store.PutIfMatch(ctx, checkpointKey(path, name), body, obj.ETag)
		if errs.Is(err, errs.Conflict) { // by a late attempt of ours
			err = errs.Wrap(errs.Unavailable, err, "checkpoint %s of %s", name, path)
		}
		return err
	})
	return c, body, err
}

// newCheckpoint returns a checkpoint of a head's map, and how it is stored.
func newCheckpoint(name string, h *format.Head) (*format.Checkpoint, []byte, error) {
	c := &format.Checkpoint{Version: format.Version, Name: name, UID: h.UID, Nonce: newNonce(), Size: h.Size,
		Mode: h.Mode, Root: h.Root, Lineage: h.Lineage, Created: now()}
	if h.Encryption != nil {
		c.Features = []string{format.FeatureEncryption}
	}
	body, err := format.Encode(c)
	return c, body, err
}

func (o *objects) putCheckpoint(ctx context.Context, path, name string, h *format.Head) (*format.Checkpoint, []byte, error) {
	c, body, err := newCheckpoint(name, h)
	if err != nil {
		return nil, nil, err
	}
	err = o.putNew(ctx, checkpointKey(path, name), body)
	switch {
	case errs.Is(err, errs.Conflict):
		return nil, nil, errs.Wrap(errs.Exists, err, "disk %s has a checkpoint %q", path, name).WithRemedy("choose another name")
	case err != nil:
		return nil, nil, errs.Wrap(errs.KindOf(err), err, "checkpoint %s", path)
	}
	return c, body, nil
}

// RemoveCheckpoint removes a checkpoint for good. Forks of it keep what they need, and so do pins: a collector frees
// what nothing else refers to. NotFound lists the checkpoints that there are.
func RemoveCheckpoint(ctx context.Context, store blob.Store, path, name string) error {
	if err := checkPath(path); err != nil {
		return err
	}
	o := oneShot(store)
	if _, err := o.loadCheckpoint(ctx, path, name); err != nil && !errs.Is(err, errs.Corrupt) {
		return err
	}
	if err := o.remove(ctx, checkpointKey(path, name)); err != nil {
		return errs.Wrap(errs.KindOf(err), err, "remove checkpoint %s of %s", name, path)
	}
	return nil
}

// loadCheckpoint reads a checkpoint. NotFound lists those that there are.
func (o *objects) loadCheckpoint(ctx context.Context, path, name string) (*format.Checkpoint, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	obj, err := o.get(ctx, checkpointKey(path, name), blob.All())
	if errs.Is(err, errs.NotFound) {
		return nil, o.noCheckpoint(ctx, path, name, err)
	}
	if err != nil {
		return nil, errs.Wrap(errs.KindOf(err), err, "read checkpoint %s of %s", name, path)
	}
	c, err := format.DecodeCheckpoint(obj.Data)
	if err != nil {
		return nil, errs.Wrap(errs.KindOf(err), err, "checkpoint %s of %s", name, path)
	}
	return c, nil
}

// checkpointKeys returns the keys of what a checkpoint refers to. They are in the head of its disk alone, so that
// rekeying has one object to change, and leaves nothing behind that the old key opens.
func (o *objects) checkpointKeys(ctx context.Context, c *format.Checkpoint, path string, key KEK) (format.Keys, error) {
	if !c.Encrypted() {
		return nil, nil
	}
	h, _, err := o.loadHead(ctx, path)
	if err != nil {
		return nil, err
	}
	if h.UID != c.UID || h.Encryption == nil || !slices.Equal(h.Lineage, c.Lineage) {
		return nil, errs.New(errs.Corrupt, "checkpoint %s of %s is of another disk", c.Name, path)
	}
	return Unlock(ctx, h, key)
}

func (o *objects) noCheckpoint(ctx context.Context, path, name string, cause error) error {
	if _, _, err := o.loadHead(ctx, path); err != nil {
		return err
	}
	e := errs.Wrap(errs.NotFound, cause, "disk %s has no checkpoint %q", path, name)
	names, err := o.names(ctx, checkpointPrefix(path))
	switch {
	case err != nil:
		return e
	case len(names) == 0:
		return e.WithRemedy("make one; the disk has none")
	}
	return e.WithRemedy("use one of: %s", strings.Join(names, ", "))
}

// names lists what is directly under a prefix.
func (o *objects) names(ctx context.Context, prefix string) ([]string, error) {
	var names []string
	err := o.retry(ctx, o.bound, func(ctx context.Context) error {
		o.n.lists.Add(1)
		names = names[:0]
		return o.store.List(ctx, prefix, "", func(e blob.Entry) bool {
			names = append(names, strings.TrimPrefix(e.Key, prefix))
			return true
		})
	})
	return names, err
}

// ListCheckpoints returns a disk's checkpoints by name.
func ListCheckpoints(ctx context.Context, store blob.Store, path string) ([]*format.Checkpoint, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	o := oneShot(store)
	if _, _, err := o.loadHead(ctx, path); err != nil {
		return nil, err
	}
	names, err := o.names(ctx, checkpointPrefix(path))
	if err != nil {
		return nil, errs.Wrap(errs.KindOf(err), err, "list checkpoints of %s", path)
	}
	list := make([]*format.Checkpoint, len(names))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i, name := range names {
		g.Go(func() (err error) {
			list[i], err = o.loadCheckpoint(gctx, path, name)
			return err
		})
	}
	return list, g.Wait()
}
