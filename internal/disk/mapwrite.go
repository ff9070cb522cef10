package disk

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/disk/blockmap"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// writeMap writes a map checkpoint of all that is committed and points the head at it. change, if not nil,
// changes the head in the same swap; without it an unchanged map costs nothing. It reports whether it swapped
// the head. When it returns nil, the head's root has all that was committed before the call.
//
// Objects come first and the head last: until the swap, the head points at the old map, and the log from
// there is complete.
func (d *Disk) writeMap(ctx context.Context, change func(*format.Head)) (bool, error) {
	if err := d.destageAll(ctx); err != nil {
		return false, err
	}
	if err := d.takeTurn(ctx); err != nil {
		return false, err
	}
	defer d.giveTurn()
	if change == nil && !d.rd.m.Changed() {
		return false, nil
	}
	return true, d.writeMapInTurn(ctx, change, nil)
}

// writeMapInTurn is writeMap for who holds the turn. The map gets a name if n is not nil.
func (d *Disk) writeMapInTurn(ctx context.Context, change func(*format.Head), n *naming) error {
	packed := d.packed.unfinished() // before the snapshot: what is finished by now is in it
	snap, err := d.snapshot(ctx)
	if err != nil {
		return d.readError(ctx, err)
	}
	err = d.writeSnapshot(ctx, snap, n, func(h *format.Head) {
		if packed > 1 {
			h.Packed = packed
		}
		if change != nil {
			change(h)
		}
	})
	if err != nil {
		d.rd.m.Rollback(snap)
		return err
	}
	d.rd.m.Commit(snap)
	d.rd.pages.forget()
	d.o.n.mapWrites.Add(1)
	d.mu.Lock()
	defer d.mu.Unlock()
	if snap.Position.Epoch == d.epoch {
		d.mapped = snap.Position.Seq - 1
	}
	d.pumpLocked()
	select {
	case d.packKick <- struct{}{}:
	default:
	}
	return nil
}

// takeTurn waits for the right to write the map and the head.
func (d *Disk) takeTurn(ctx context.Context) error {
	select {
	case <-d.turn:
		return nil
	case <-ctx.Done():
		return errs.Wrap(errs.Unavailable, ctx.Err(), "wait for a map checkpoint")
	}
}

func (d *Disk) giveTurn() { d.turn <- struct{}{} }

func (d *Disk) snapshot(ctx context.Context) (*blockmap.Snapshot, error) {
	for {
		if err := d.rd.m.Complete(ctx); err != nil {
			return nil, err
		}
		if s, ok := d.rd.m.Snapshot(); ok {
			return s, nil
		}
	}
}

func (d *Disk) writeSnapshot(ctx context.Context, snap *blockmap.Snapshot, n *naming, change func(*format.Head)) error {
	ref, err := d.storeSnapshot(ctx, snap, n)
	if err != nil {
		return err
	}
	next := func(h *format.Head) {
		if ref != nil {
			h.Root = ref
		}
		h.Log = snap.Position
		change(h)
	}
	if n == nil {
		return d.updateHead(ctx, next)
	}
	h := d.Head()
	next(&h)
	var g errgroup.Group
	g.Go(func() error {
		n.put(ctx, &h)
		return nil
	})
	err = d.updateHead(ctx, next)
	_ = g.Wait() // the naming keeps its own error
	return err
}

// storeSnapshot writes a snapshot's map, if it has one, and before that is named sees that the disk is still ours: who slept since it was
// may name what is deleted by now, and die before it can take that back.
func (d *Disk) storeSnapshot(ctx context.Context, snap *blockmap.Snapshot, n *naming) (ref *format.RootRef, err error) {
	var g errgroup.Group
	if n != nil {
		g.Go(func() error { return d.revalidate(ctx) })
	}
	if !snap.Empty() {
		if ref, err = d.storeMap(ctx, snap); err != nil {
			err = errs.Wrap(errs.KindOf(err), err, "write map checkpoint")
		}
	}
	if ours := g.Wait(); err == nil {
		err = ours
	}
	return ref, err
}

// storeMap writes the pages and the root of a snapshot side by side, under a version never used before.
func (d *Disk) storeMap(ctx context.Context, snap *blockmap.Snapshot) (*format.RootRef, error) {
	d.mapN++
	v := blockmap.Version{Epoch: d.epoch, N: d.mapN, Nonce: newID()}
	var err error
	if d.own != nil {
		if v.Key, err = d.own.Pages(v.Epoch, v.N); err != nil {
			return nil, err
		}
	}
	pages, root := d.rd.m.Encode(snap, d.rd.codec, v)
	root.Size, root.Lineage, root.Created = d.Size(), d.rd.pages.lineage, now().UnixMilli()
	body := d.rd.codec.EncodeRoot(root, v.Key)
	ref := &format.RootRef{Epoch: v.Epoch, N: v.N, Size: int64(len(body)), CRC: format.CRC(body)}

	g, gctx := errgroup.WithContext(ctx)
	if len(pages) > format.PagesHeaderLen {
		ref.PagesSize = int64(len(pages))
		g.Go(func() error { return d.o.putNew(gctx, pagesKey(d.path, v.Epoch, v.N), pages) })
	}
	err = d.o.putNew(ctx, rootKey(d.path, v.Epoch, v.N), body)
	if gerr := g.Wait(); err == nil {
		err = gerr
	}
	return ref, err
}

// updateHead swaps the head. Whoever holds the turn may call it. When the head is another's, the disk is
// fenced.
func (d *Disk) updateHead(ctx context.Context, change func(*format.Head)) error {
	for {
		d.headMu.Lock()
		next, etag := d.head, d.etag
		d.headMu.Unlock()
		change(&next)
		if next.LogStore != nil {
			next.LogStore = next.LogStore.Since(next.Log.Epoch)
		}
		if d.traced.Load() {
			next.Boot = d.epoch
		}
		next.Nonce, next.Updated = newNonce(), now()
		cur, curTag, err := d.o.swapHead(ctx, d.path, &next, etag)
		if err != nil && !errs.Is(err, errs.Conflict) {
			return errs.Wrap(errs.KindOf(err), err, "write head of %s", d.path)
		}
		if ferr := d.checkHead(cur); ferr != nil {
			return ferr
		}
		d.headMu.Lock()
		d.head, d.etag = *cur, curTag
		d.headMu.Unlock()
		if err == nil {
			return nil
		}
		// A swap of ours that was given up for lost has arrived after all: go on from there.
	}
}

// checkHead fences the disk if the head is not ours any more.
func (d *Disk) checkHead(h *format.Head) error {
	own := d.Head()
	if h.Epoch == own.Epoch && h.Session == own.Session {
		return nil
	}
	err := errs.New(errs.Fenced, "disk %s: %q attached it with generation %d (epoch %d); this session has generation %d (epoch %d)",
		d.path, h.Holder, h.Generation, h.Epoch, own.Generation, own.Epoch).
		WithRemedy("stop; the disk is attached elsewhere")
	d.fail(err)
	return err
}
