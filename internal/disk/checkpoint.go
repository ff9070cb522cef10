package disk

import (
	"context"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/store"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Checkpoint names the disk's present content: everything written before the call is in it. It
// moves metadata only. Exists if the name is taken.
//
// It takes four round trips: log object, map, head with the name beside it, and a check that the
// head still has that map. With nothing new it takes three: a check that the disk is still ours,
// the name, and the last.
func (d *Disk) Checkpoint(ctx context.Context, name string) (*format.Checkpoint, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := d.flushStore(ctx); err != nil {
		return nil, err
	}
	if err := d.destageAll(ctx); err != nil {
		return nil, err
	}
	if err := d.mapping.take(ctx); err != nil { // so that the head's map stays until it is named
		return nil, err
	}
	defer d.mapping.give()
	n := &naming{store: d.store, path: d.path, name: name, mine: d.checkHead}
	if d.reader.m.Changed() {
		return n.end(ctx, d.writeMapInTurn(ctx, nil, n))
	}
	if err := d.revalidate(ctx); err != nil { // a fenced session must not name an old state
		return nil, err
	}
	h := d.Head()
	n.put(ctx, &h)
	return n.confirm(ctx)
}

// CheckpointClosed names the content of a disk that nobody has attached. Conflict if its head is
// open.
func CheckpointClosed(
	ctx context.Context, store blob.Store, path, name string,
) (*format.Checkpoint, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	if err := CheckName(name); err != nil {
		return nil, err
	}
	client := oneShot(store)
	h, _, err := client.LoadHead(ctx, path)
	if err != nil {
		return nil, err
	}
	if h.State != format.StateClosed {
		return nil, errs.New(errs.Conflict, "disk %s is open: %q attached it with generation %d",
			path, h.Holder, h.Generation).
			WithRemedy("checkpoint it where it is attached, or close it first (after a crash: " +
				"attach and close)")
	}
	n := &naming{store: client, path: path, name: name, mine: func(h *format.Head) error {
		if h.State == format.StateClosed {
			return nil
		}
		return errs.New(errs.Conflict, "disk %s was attached meanwhile, by %q", path, h.Holder).
			WithRemedy("checkpoint it where it is attached")
	}}
	n.put(ctx, h)
	return n.confirm(ctx)
}

// RemoveCheckpoint removes a checkpoint for good. Forks of it keep what they need, and so do pins:
// a collector frees what nothing else refers to. NotFound lists the checkpoints that there are.
func RemoveCheckpoint(ctx context.Context, store blob.Store, path, name string) error {
	if err := checkPath(path); err != nil {
		return err
	}
	client := oneShot(store)
	if _, err := loadCheckpoint(ctx, client, path, name); err != nil &&
		!errs.Is(err, errs.Corrupt) && !errs.Is(err, errs.Unsupported) {
		return err
	}
	if err := client.Remove(ctx, checkpointKey(path, name)); err != nil {
		return errs.Wrap(errs.KindOf(err), err, "remove checkpoint %s of %s", name, path)
	}
	return nil
}

// loadCheckpoint reads a checkpoint. NotFound lists those that there are.
func loadCheckpoint(
	ctx context.Context, client *store.Client, path, name string,
) (*format.Checkpoint, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	obj, err := client.Get(ctx, checkpointKey(path, name), blob.All())
	if errs.Is(err, errs.NotFound) {
		return nil, noCheckpoint(ctx, client, path, name, err)
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

// checkpointKeys returns the keys of what a checkpoint refers to. They are in the head of its disk
// alone. So rekeying has one object to change, and leaves nothing that the old key opens.
func checkpointKeys(
	ctx context.Context, client *store.Client, c *format.Checkpoint, path string, key KEK,
) (format.Keys, error) {
	if !c.Encrypted() {
		return nil, nil
	}
	h, _, err := client.LoadHead(ctx, path)
	if err != nil {
		return nil, err
	}
	if h.UID != c.UID || h.Encryption == nil || !slices.Equal(h.Lineage, c.Lineage) {
		return nil, errs.New(errs.Corrupt, "checkpoint %s of %s is of another disk", c.Name, path)
	}
	return Unlock(ctx, h, key)
}

func noCheckpoint(ctx context.Context, client *store.Client, path, name string, cause error) error {
	if _, _, err := client.LoadHead(ctx, path); err != nil {
		return err
	}
	e := errs.Wrap(errs.NotFound, cause, "disk %s has no checkpoint %q", path, name)
	names, err := client.Names(ctx, format.KeyCheckpoint.Folder(path))
	switch {
	case err != nil:
		return e
	case len(names) == 0:
		return e.WithRemedy("make one; the disk has none")
	}
	return e.WithRemedy("use one of: %s", strings.Join(names, ", "))
}

// ListCheckpoints returns a disk's checkpoints by name.
func ListCheckpoints(
	ctx context.Context, store blob.Store, path string,
) ([]*format.Checkpoint, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	client := oneShot(store)
	if _, _, err := client.LoadHead(ctx, path); err != nil {
		return nil, err
	}
	names, err := client.Names(ctx, format.KeyCheckpoint.Folder(path))
	if err != nil {
		return nil, errs.Wrap(errs.KindOf(err), err, "list checkpoints of %s", path)
	}
	list := make([]*format.Checkpoint, len(names))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i, name := range names {
		g.Go(func() (err error) {
			list[i], err = loadCheckpoint(gctx, client, path, name)
			return err
		})
	}
	return list, g.Wait()
}
