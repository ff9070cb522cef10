package disk

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/disk/blockmap"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/store"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// mapWriting is the state of map checkpoints. Whoever has the turn may write the map and the head,
// and may use n.
type mapWriting struct {
	turn turn
	n    uint32 // of map versions, in this epoch
	wake signal // wakes mapLoop

	traced     atomic.Bool // this session's boot trace is stored: the next head points at it
	preloading atomic.Bool // map pages are being read beside an upload
}

func newMapWriting() mapWriting { return mapWriting{turn: newTurn(), wake: newSignal()} }

func (w *mapWriting) take(ctx context.Context) error { return w.turn.take(ctx, "a map checkpoint") }
func (w *mapWriting) give()                          { w.turn.give() }

// writeMap writes a map checkpoint of all that is committed and points the head at it. change, if
// not nil, changes the head in the same swap; without it an unchanged map costs nothing. It reports
// whether it swapped the head. When it returns nil, the head's root has all that was committed
// before the call.
//
// Objects come first and the head last: until the swap, the head points at the old map, and the log
// from there is complete.
func (d *Disk) writeMap(ctx context.Context, change func(*format.Head)) (bool, error) {
	if err := d.destageAll(ctx); err != nil {
		return false, err
	}
	if err := d.mapping.take(ctx); err != nil {
		return false, err
	}
	defer d.mapping.give()
	if change == nil && !d.reader.m.Changed() {
		return false, d.proveForMap(ctx)
	}
	return true, d.writeMapInTurn(ctx, change, nil)
}

// writeMapInTurn is writeMap for a caller that has the turn. The map gets a name if n is not nil.
func (d *Disk) writeMapInTurn(ctx context.Context, change func(*format.Head), n *naming) error {
	// before the snapshot: what is finished by now is in it
	packed := d.packing.numbers.unfinished()
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
		d.reader.m.Rollback(snap)
		return err
	}
	d.reader.m.Commit(snap)
	d.reader.pages.forget()
	d.counters.mapWrites.Add(1)
	d.pipe.mu.Lock()
	if snap.Position.Epoch == d.epoch {
		d.pipe.mapped = snap.Position.Seq - 1
	}
	mapped := d.pipe.mapped
	d.pumpLocked()
	d.pipe.mu.Unlock()
	d.dropMapped(mapped)
	d.packing.wake.notify()
	return nil
}

func (d *Disk) snapshot(ctx context.Context) (*blockmap.Snapshot, error) {
	for {
		if err := d.reader.m.Complete(ctx); err != nil {
			return nil, err
		}
		if s, ok := d.reader.m.Snapshot(); ok {
			return s, nil
		}
	}
}

// writeSnapshot stores a snapshot and points the head at it. The store must show every object that
// a head refers to. It shows those that the map refers to beside the writing of the map, and the
// map's own beside the swap of the head. So nothing waits longer for that.
func (d *Disk) writeSnapshot(
	ctx context.Context, snap *blockmap.Snapshot, n *naming, change func(*format.Head),
) error {
	stored, err := d.storeSnapshot(ctx, snap, n)
	if err != nil {
		return err
	}
	ref := stored.ref
	next := func(h *format.Head) {
		if ref != nil {
			h.Root = ref
		}
		h.Log = snap.Position
		change(h)
	}
	var g errgroup.Group
	g.Go(func() error { return stored.prove(ctx, d.store) })
	if n != nil {
		h := d.Head()
		next(&h)
		g.Go(func() error {
			n.put(ctx, &h) // which keeps its own error
			return nil
		})
	}
	err = d.updateHead(ctx, next)
	if unproven := g.Wait(); err == nil {
		err = unproven
	}
	return err
}

// storedMap is the objects of a map that was written; an empty map has none.
type storedMap struct {
	ref    *format.RootRef
	bodies map[string][]byte // by key
}

// prove returns when the store has shown them.
func (m *storedMap) prove(ctx context.Context, client *store.Client) error {
	var g errgroup.Group
	for key, body := range m.bodies {
		g.Go(func() error { return client.Prove(ctx, key, body) })
	}
	if err := g.Wait(); err != nil {
		return errs.Wrap(errs.KindOf(err), err, "see that the map is stored")
	}
	return nil
}

// storeSnapshot writes a snapshot's map, if it has one. Beside that the store shows what the map
// refers to. Before the map is named, it checks that the disk is still ours. A host that slept
// since may name what is deleted by now, and die before it can take that back.
func (d *Disk) storeSnapshot(
	ctx context.Context, snap *blockmap.Snapshot, n *naming,
) (stored *storedMap, err error) {
	var g errgroup.Group
	g.Go(func() error { return d.proveForMap(ctx) })
	if n != nil {
		g.Go(func() error { return d.revalidate(ctx) })
	}
	stored = &storedMap{}
	if !snap.Empty() {
		if stored, err = d.storeMap(ctx, snap); err != nil {
			err = errs.Wrap(errs.KindOf(err), err, "write map checkpoint")
		}
	}
	if other := g.Wait(); err == nil {
		err = other
	}
	return stored, err
}

// storeMap writes the pages and the root of a snapshot side by side, under a version never used
// before.
func (d *Disk) storeMap(ctx context.Context, snap *blockmap.Snapshot) (*storedMap, error) {
	d.mapping.n++
	v := blockmap.Version{Epoch: d.epoch, N: d.mapping.n, Nonce: newID()}
	var err error
	if d.keys.own != nil {
		if v.Key, err = d.keys.own.Pages(v.Epoch, v.N); err != nil {
			return nil, err
		}
	}
	pages, root := d.reader.m.Encode(snap, d.reader.codec, v)
	root.Size, root.Lineage, root.Created = d.Size(), d.reader.pages.lineage, now().UnixMilli()
	body := d.reader.codec.EncodeRoot(root, v.Key)
	m := &storedMap{bodies: map[string][]byte{rootKey(d.path, v.Epoch, v.N): body},
		ref: &format.RootRef{Epoch: v.Epoch, N: v.N, Size: int64(len(body)), CRC: format.CRC(body)}}
	if len(pages) > format.PagesHeaderLen {
		m.ref.PagesSize = int64(len(pages))
		m.bodies[pagesKey(d.path, v.Epoch, v.N)] = pages
	}
	var g errgroup.Group
	for key, body := range m.bodies {
		g.Go(func() error { return d.store.PutNew(ctx, key, body) })
	}
	return m, g.Wait()
}

// updateHead swaps the head. Whoever holds the turn may call it. When the head is another's, the
// disk is fenced.
func (d *Disk) updateHead(ctx context.Context, change func(*format.Head)) error {
	for {
		next, etag := d.head.get()
		change(&next)
		if next.LogStore != nil {
			next.LogStore = next.LogStore.Since(next.Log.Epoch)
		}
		if d.mapping.traced.Load() {
			next.Boot = d.epoch
		}
		next.Nonce, next.Updated = newNonce(), now()
		cur, curTag, err := d.store.SwapHead(ctx, d.path, &next, etag)
		if err != nil && !errs.Is(err, errs.Conflict) {
			return errs.Wrap(errs.KindOf(err), err, "write head of %s", d.path)
		}
		if ferr := d.checkHead(cur); ferr != nil {
			return ferr
		}
		d.head.set(cur, curTag)
		if err == nil {
			return nil
		}
		// A swap of ours that was given up for lost has arrived after all: go on from there.
	}
}

// checkHead returns nil if the head is ours. Else it fences the disk.
func (d *Disk) checkHead(h *format.Head) error {
	own := d.Head()
	if h.Epoch == own.Epoch && h.Session == own.Session {
		return nil
	}
	err := errs.New(errs.Fenced,
		"disk %s: %q attached it with generation %d (epoch %d); this session has generation %d "+
			"(epoch %d)",
		d.path, h.Holder, h.Generation, h.Epoch, own.Generation, own.Epoch).
		WithRemedy("stop; the disk is attached elsewhere")
	d.fail(err)
	return err
}
