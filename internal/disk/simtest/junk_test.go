package simtest

import (
	"slices"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/gc"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// In some runs disks have writers that put junk among their own objects, wherever a writer may. The
// collector must go on, and must delete nothing that lives.

// junkEvery is how many steps there are to one piece of junk.
const junkEvery = 4

// litter writes junk into a folder of the disk's own: noise, or a checkpoint that refers to a map
// in a wrong way.
func (w *world) litter(v *vdisk) {
	key, body := v.path+"/ckpt/"+w.name("junk"), make([]byte, 1+w.rng.IntN(200))
	for i := range body {
		body[i] = byte(w.rng.Uint32())
	}
	obj, err := w.p.Store.Get(w.ctx, v.path+"/head", blob.All())
	if err != nil {
		return
	}
	h, err := format.DecodeHead(obj.Data)
	if err != nil {
		w.violate("litter: %v", err)
		return
	}
	if h.Root != nil && w.rng.IntN(2) == 0 {
		root := *h.Root
		c := &format.Checkpoint{Version: format.Version, Features: slices.DeleteFunc(
			slices.Clone(h.Features), func(f string) bool { return f != format.FeatureEncryption }),
			Name: key[strings.LastIndexByte(key, '/')+1:], UID: h.UID, Nonce: h.Nonce, Size: h.Size,
			Mode: h.Mode, Root: &root, Lineage: h.Lineage, Created: h.Created}
		switch w.rng.IntN(4) {
		case 0:
			root.CRC ^= 1
		case 1:
			root.N += 100
		case 2:
			c.Size = format.BlockSize
		case 3:
			c.Lineage, root.Lineage = c.Lineage[root.Lineage:], 0
			c.Lineage = append([]format.Ancestor{{Path: v.path, UID: h.UID}}, c.Lineage...)
		}
		if body, err = format.Encode(c); err != nil {
			w.violate("litter: %v", err)
			return
		}
	}
	if _, err := w.p.Store.PutIfAbsent(w.ctx, key, body); err == nil {
		w.junk = append(w.junk, key)
		w.log("junk at %s", key)
	}
}

// clean collects twice beside all the junk, and then removes it, as the report advises.
func (w *world) clean() {
	if len(w.junk) == 0 {
		return
	}
	for range 2 {
		if r, err := w.coll.step(w.ctx); err != nil && w.failed() == nil {
			w.violate("collect beside junk: %v", err)
		} else if r != nil {
			w.doubts.Add(int64(r.Doubts))
		}
		time.Sleep(grace)
	}
	for _, key := range w.junk {
		_ = w.p.Store.Delete(w.ctx, key) // of memory: it doesn't fail
	}
}

// doubted returns an error if a collection found anything that makes no sense, but for junk.
func (w *world) doubted(r *gc.Report) error {
	w.doubts.Add(int64(r.Doubts))
	for _, d := range r.Doubtful {
		if !strings.Contains(d.Object, "/ckpt/junk") {
			return errs.New(errs.Corrupt, "%s makes no sense: %s", d.Object, d.Why)
		}
	}
	return nil
}
