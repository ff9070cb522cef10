package simtest

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/fsck"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// settled is how long it takes until nothing that was asked of the store can still happen.
const settled = 10 * time.Second

// destroy removes a disk for good, beside what else happens: forks and readers of it, a writer that
// is left over, the collector. What it interrupts may fail, and may not be told that it was done
// while it wasn't.
func (w *world) destroy(v *vdisk) {
	if v.busy || w.p.bug.ofJournal() {
		return
	}
	w.p.settle(v.path + "/head")
	w.p.settle(v.path + "/ckpt")
	if v.cur != nil && w.rng.IntN(2) == 0 {
		w.log("its writer dies first")
		w.crash(v)
	}
	v.dead.Store(true)
	w.disks = slices.DeleteFunc(w.disks, func(d *vdisk) bool { return d == v })
	w.gone = append(w.gone, v)
	if len(w.disks) == 0 {
		w.create()
	}
	c := w.slowClient()
	c.fresh = true // it has no grace, and believes the store's contract
	if w.p.logs != nil {
		w.logDestroys.Add(1)
	}
	w.start(c, func() {
		err := disk.Destroy(w.ctx, w.unheeding(c), v.path, disk.DestroyOptions{OpenLog: c.openLog})
		w.log("destroy %s: %v", v.path, err)
		if err == nil && w.p.logs != nil {
			w.logDestroyed.Add(1)
		}
		if err != nil && !errs.Is(err, errs.Unavailable) {
			w.violate("destroy %s: %v", v.path, err)
		}
	})
	for range w.rng.IntN(6) {
		if w.rng.IntN(3) == 0 {
			w.step()
		} else {
			w.haunt(v)
		}
	}
}

// haunt uses a disk that is being destroyed, or was.
func (w *world) haunt(v *vdisk) {
	switch w.rng.IntN(8) {
	case 0:
		w.attach(v, w.client())
	case 1:
		w.checkpoint(v)
	case 2:
		w.fork(v)
	case 3, 4:
		w.readOnly(v)
	case 5:
		w.restore(v)
	case 6:
		w.collect()
	default:
		past := v.past
		if v.cur != nil {
			past = append(past, v.cur)
		}
		if len(past) > 0 {
			s, arg := past[w.rng.IntN(len(past))], w.rng.Uint64()
			w.start(s, func() { w.burst(s, arg) })
		}
	}
}

// bury destroys again, as an owner does who wasn't told that it is done, what was destroyed before;
// and what failed forks have left, as their errors say.
func (w *world) bury() {
	paths := w.orphans
	for _, v := range w.gone {
		paths = append(paths, v.path)
	}
	for _, path := range paths {
		c := w.p.client(0, 0)
		if err := disk.Destroy(w.ctx, w.unheeding(c), path,
			disk.DestroyOptions{OpenLog: c.openLog}); err != nil {
			w.violate("destroy %s over a good store: %v", path, err)
		}
	}
}

// nothingLeft sees that a destroyed disk has left nothing but what its forks need.
func (w *world) nothingLeft(v *vdisk) {
	if w.p.bug != noBug || w.failed() != nil {
		return
	}
	n := needs{fsck.NewReach(w.p.Store, w.coll.codec, map[string]int64{}), map[string]bool{}}
	for _, d := range w.disks {
		if err := n.add(w, d); err != nil {
			w.violate("what %s needs in the end: %v", d.path, err)
			return
		}
	}
	var left []string
	_ = w.p.List(w.ctx, v.path+"/", "", func(e blob.Entry) bool {
		if !n.reach.Has(e.Key) && !n.refs[e.Key] {
			left = append(left, e.Key)
		}
		return true
	})
	if len(left) > 0 {
		w.violate("destroyed %s has left %v", v.path, left)
	}
}

// needs is what living disks need of others.
type needs struct {
	reach *fsck.Reach
	refs  map[string]bool // keys, along all lineages
}

func (n needs) add(w *world, d *vdisk) error {
	o, err := w.p.Get(w.ctx, d.path+"/head", blob.All())
	if err != nil {
		return err
	}
	h, err := format.DecodeHead(o.Data)
	if err != nil {
		return err
	}
	for i := range len(h.Lineage) - 1 {
		n.refs[h.Lineage[i+1].Path+"/refs/"+url.PathEscape(h.Lineage[i].Path)] = true
	}
	if err := n.reach.Map(w.ctx, h.Lineage, h.Root, h.Size); err != nil {
		return err
	}
	var keys []string // also of some that were to be removed, and are there
	_ = w.p.List(w.ctx, d.path+"/ckpt/", "",
		func(e blob.Entry) bool { keys = append(keys, e.Key); return true })
	for _, key := range keys {
		o, err := w.p.Get(w.ctx, key, blob.All())
		if err != nil {
			return err
		}
		c, err := format.DecodeCheckpoint(o.Data)
		if err != nil {
			return err
		}
		if err := n.reach.Map(w.ctx, c.Lineage, c.Root, c.Size); err != nil {
			return err
		}
	}
	return nil
}

// unheeding returns the store as a Destroy sees it that doesn't heed forks, or readers.
func (w *world) unheeding(c *client) blob.Store {
	switch w.p.bug {
	case destroyForked:
		return heedless{c, "/refs/"}
	case destroyPinned:
		return heedless{c, "/pins/"}
	}
	return c
}

type heedless struct {
	*client
	hidden string
}

func (h heedless) List(ctx context.Context, prefix, after string,
	yield func(blob.Entry) bool) error {
	return h.client.List(ctx, prefix, after,
		func(e blob.Entry) bool { return strings.Contains(e.Key, h.hidden) || yield(e) })
}
