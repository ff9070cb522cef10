package gc_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/disk/gc"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// family is a pool with a hostile disk, of which the last letters are its path's: an image that it
// was forked from, a sibling, a fork of its own, and a disk that has nothing to do with it. All of
// them have garbage.
func family(t *testing.T) *pool {
	p := newPool(t)
	p.create("disks/img")
	p.session("disks/img", func(d *disk.Disk) { p.write(d, 0, 'i'); p.checkpoint(d, "k") })
	for _, path := range []string{"disks/evil", "disks/sib"} {
		p.fork("disks/img", path)
	}
	p.session("disks/evil", func(d *disk.Disk) { p.write(d, 1, 'e'); p.checkpoint(d, "k") })
	p.fork("disks/evil", "disks/kin")
	p.create("disks/other")
	for i, path := range []string{"disks/img", "disks/evil", "disks/sib", "disks/kin",
		"disks/other"} {
		for _, letter := range "xyz" {
			p.session(path, func(d *disk.Disk) { p.write(d, int64(i), byte(letter)) })
		}
	}
	return p
}

var familyReads = []struct{ path, letters string }{{"disks/img", "z"}, {"disks/sib", "i\x00z"},
	{"disks/kin", "ie\x00z"}, {"disks/other", "\x00\x00\x00\x00z"}, {"disks/evil", "iz"}}

// alive fails unless all disks but the hostile one have their content.
func (p *pool) alive(what string) {
	p.t.Helper()
	for _, d := range familyReads[:4] {
		r, err := disk.OpenReadOnly(p.ctx, p.store, d.path, "",
			disk.ReadOnlyOptions{Unpinned: true})
		if err != nil {
			p.t.Fatalf("%s: %v", what, err)
		}
		p.deviceReads(r, d.letters)
		p.must(r.Close())
	}
}

func (p *pool) head(path string) *format.Head {
	p.t.Helper()
	h, err := disk.ReadHead(p.ctx, p.store, path)
	p.must(err)
	return h
}

func (p *pool) document(key string, doc any) {
	p.t.Helper()
	b, err := format.Encode(doc)
	p.must(err)
	_, err = p.store.Put(p.ctx, key, b)
	p.must(err)
}

// point is a checkpoint of the hostile disk, which a test makes worse.
func (p *pool) point(name string) *format.Checkpoint {
	h := p.head("disks/evil")
	return &format.Checkpoint{Version: 1, Name: name, UID: h.UID, Nonce: "N", Size: h.Size,
		Mode: h.Mode, Root: h.Root, Lineage: h.Lineage, Created: h.Created}
}

// junk is what a hostile VM may have written into its own disk's folders, and what may have been
// damaged there, by name. Each returns the key.
var junk = map[string]func(p *pool) string{
	"noise": func(p *pool) string {
		return p.raw("disks/evil/ckpt/j", noise(80))
	},
	"an empty object": func(p *pool) string { return p.raw("disks/evil/ckpt/j", nil) },
	"a newer checkpoint": func(p *pool) string {
		return p.raw("disks/evil/ckpt/j", []byte(`{"version":99}`))
	},
	"a reference": func(p *pool) string { return p.raw("disks/evil/refs/j", []byte("{")) },
	"a pin":       func(p *pool) string { return p.raw("disks/evil/pins/j", []byte("{")) },
	"a newer pin": func(p *pool) string {
		return p.raw("disks/evil/pins/j", []byte(`{"version":7}`))
	},
	"another name": func(p *pool) string {
		p.document("disks/evil/ckpt/j", p.point("k"))
		return "disks/evil/ckpt/j"
	},
	"a lineage without the image": func(p *pool) string {
		c := p.point("j")
		c.Lineage, c.Root = c.Lineage[:1], nil
		p.document("disks/evil/ckpt/j", c)
		return "disks/evil/ckpt/j"
	},
	"a map that isn't there": func(p *pool) string {
		c := p.point("j")
		c.Root.N += 7
		p.document("disks/evil/ckpt/j", c)
		return "disks/evil/ckpt/j"
	},
	"a map of noise": func(p *pool) string {
		c, body := p.point("j"), noise(300)
		c.Root = &format.RootRef{Epoch: 1, N: 77, Size: 300, CRC: format.CRC(body)}
		p.raw("disks/evil/map/"+fmt.Sprintf("%016x-%08x/root", 1, 77), body)
		p.document("disks/evil/ckpt/j", c)
		return "disks/evil/ckpt/j"
	},
	// The others refer to the same map, and rightly.
	"the image's map, with a wrong checksum": func(p *pool) string {
		c, h := p.point("j"), p.head("disks/img")
		root := *h.Root
		root.Lineage, root.CRC = 1, root.CRC^1
		c.Root = &root
		p.document("disks/evil/ckpt/j", c)
		return "disks/evil/ckpt/j"
	},
	"the sibling's map, by a lineage without its image": func(p *pool) string {
		c, h := p.point("j"), p.head("disks/sib")
		root := *h.Root
		root.Lineage = 1
		c.Root, c.Lineage = &root, []format.Ancestor{c.Lineage[0], h.Lineage[0]}
		p.document("disks/evil/ckpt/j", c)
		return "disks/evil/ckpt/j"
	},
	"its head's map is gone": func(p *pool) string {
		h := p.head("disks/evil")
		p.must(p.store.Delete(p.ctx, format.MapKey(h.Root.Epoch, h.Root.N,
			format.RootName).In("disks/evil")))
		return "disks/evil/head"
	},
	"its head has the image's map, with a wrong size": func(p *pool) string {
		h := p.head("disks/evil")
		root := *p.head("disks/img").Root
		root.Lineage, root.Size = 1, root.Size+1
		h.Root = &root
		p.document("disks/evil/head", h)
		return "disks/evil/head"
	},
}

func (p *pool) raw(key string, body []byte) string {
	p.t.Helper()
	_, err := p.store.Put(p.ctx, key, body)
	p.must(err)
	return key
}

func noise(n int) []byte {
	rng, b := rand.New(rand.NewPCG(5, 6)), make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// TestJunkOfOneDiskStopsNoOthersCollection: the garbage of a sibling, of a fork and of a stranger
// goes; nothing of the hostile disk or of its image does, until the junk is removed.
func TestJunkOfOneDiskStopsNoOthersCollection(t *testing.T) {
	whole := family(t)
	whole.alive("before")
	honest := whole.cloned()
	for range 3 {
		honest.collect()
	}
	honest.alive("without junk")
	for name, put := range junk {
		for _, marked := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " marked before: ", marked), func(t *testing.T) {
				p := whole.cloned()
				p.t = t
				if marked {
					p.collect()
				}
				key := put(p)
				held := map[string]int{"disks/evil/": p.count("disks/evil/"),
					"disks/img/": p.count("disks/img/")}
				var r *gc.Report
				for range 3 {
					r = p.collect()
				}
				p.alive(name)
				for prefix, n := range held {
					if got := p.count(prefix); got != n {
						t.Errorf("%d of %d objects below %s are left", got, n, prefix)
					}
				}
				for _, prefix := range []string{"disks/sib/", "disks/kin/", "disks/other/"} {
					if got, want := p.count(prefix), honest.count(prefix); got != want {
						t.Errorf("%d objects below %s are left, %d without junk", got, prefix,
							want)
					}
				}
				if r.Doubts == 0 || r.Doubtful[0].Object != key || r.Doubtful[0].HoldsAll ||
					!strings.Contains(r.Doubtful[0].Remedy, "disks/evil") {
					t.Errorf("reported: %+v", r.Doubtful)
				}
				p.remedied(key, honest)
			})
		}
	}
}

// remedied does what the report advises for a checkpoint, and collects the rest.
func (p *pool) remedied(key string, honest *pool) {
	p.t.Helper()
	name, ok := strings.CutPrefix(key, "disks/evil/ckpt/")
	if !ok {
		return
	}
	p.must(disk.RemoveCheckpoint(p.ctx, p.store, "disks/evil", name))
	for range 3 {
		p.collect()
	}
	for _, prefix := range []string{"disks/evil/", "disks/img/"} {
		if got, want := p.count(prefix), honest.count(prefix); got != want {
			p.t.Errorf("%d objects below %s are left once the junk is gone, want %d", got,
				prefix, want)
		}
	}
	p.reads("disks/evil", "", "iz")
	p.alive("after the remedy")
}

// TestRandomJunkDeletesNothingThatLives has a hostile disk write what it likes, of every kind that
// a VM may, by a seed, between the marks.
func TestRandomJunkDeletesNothingThatLives(t *testing.T) {
	whole := family(t)
	names := make([]string, 0, len(junk))
	for name := range junk {
		names = append(names, name)
	}
	slices.Sort(names)
	doubted, freed := 0, 0
	for seed := range uint64(150) {
		p := whole.cloned()
		rng := rand.New(rand.NewPCG(seed, 14))
		for range 5 {
			for range rng.IntN(3) {
				p.damage(rng, names)
			}
			r, err := p.tryCollect()
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			doubted += r.Doubts
			freed += r.Freed.Total().Objects
		}
		p.alive(fmt.Sprint("seed ", seed))
		if t.Failed() {
			return
		}
	}
	if doubted == 0 || freed == 0 {
		t.Errorf("%d doubts, %d objects freed: this proves nothing", doubted, freed)
	}
	t.Logf("RESULT junk of one disk: 150 seeds, %d doubts, %d objects of all disks freed, nothing "+
		"that lives was deleted", doubted, freed)
}

// damage writes some junk, or changes a byte of an object that is the hostile disk's own.
func (p *pool) damage(rng *rand.Rand, names []string) {
	p.t.Helper()
	if rng.IntN(2) == 0 {
		junk[names[rng.IntN(len(names))]](p)
		return
	}
	var keys []string
	p.must(p.store.List(p.ctx, "disks/evil/", "", func(e blob.Entry) bool {
		// what the fork needs of its parent is the parent's to damage
		if e.Key != "disks/evil/head" && !strings.HasSuffix(e.Key, "/ckpt/k") && e.Size > 0 &&
			!strings.Contains(e.Key, "0000000000000001") {
			keys = append(keys, e.Key)
		}
		return true
	}))
	key := keys[rng.IntN(len(keys))]
	obj, err := p.store.Get(p.ctx, key, blob.All())
	p.must(err)
	obj.Data[rng.IntN(len(obj.Data))] ^= 1 << rng.IntN(8)
	p.raw(key, obj.Data)
}

// TestJunkOfADestroyedDisk: without a head, references tell what it descends from. Where none does,
// nothing at all is deleted.
func TestJunkOfADestroyedDisk(t *testing.T) {
	p := family(t)
	p.must(disk.Destroy(p.ctx, p.store, "disks/kin", disk.DestroyOptions{}))
	p.must(disk.Destroy(p.ctx, p.store, "disks/evil", disk.DestroyOptions{}))
	p.raw("disks/evil/ckpt/j", noise(80))
	image, other := p.count("disks/img/"), p.count("disks/other/")
	for range 4 {
		if r := p.collect(); r.Doubts != 1 || r.Doubtful[0].HoldsAll {
			t.Errorf("doubtful: %+v", r.Doubtful)
		}
	}
	if n := p.count("disks/img/"); n != image {
		t.Errorf("%d of the image's %d objects are left", n, image)
	}
	if n := p.count("disks/other/"); n >= other {
		t.Errorf("nothing of %d objects of another disk was collected", n)
	}
	p.session("disks/other", func(d *disk.Disk) { p.write(d, 4, 'a') })
	p.session("disks/other", func(d *disk.Disk) { p.write(d, 4, 'z') })
	p.raw("disks/unheard-of/ckpt/j", noise(80))
	before := p.count("disks/")
	for range 3 {
		if r := p.collect(); r.Doubts != 2 || !r.Doubtful[0].HoldsAll && !r.Doubtful[1].HoldsAll {
			t.Errorf("doubtful: %+v", r.Doubtful)
		}
	}
	if n := p.count("disks/"); n != before {
		t.Errorf("%d of %d objects are left", n, before)
	}
	p.must(disk.RemoveCheckpoint(p.ctx, p.store, "disks/unheard-of", "j"))
	p.must(disk.RemoveCheckpoint(p.ctx, p.store, "disks/evil", "j"))
	for range 3 {
		p.collect()
	}
	if n := p.count("disks/"); n >= before {
		t.Errorf("%d of %d objects are left once the junk is gone", n, before)
	}
}

// TestAStoreThatFailsIsNoDoubt: what can't be read now may be what holds everything.
func TestAStoreThatFailsIsNoDoubt(t *testing.T) {
	p := family(t)
	p.store = &failing{Store: p.store, key: "disks/evil/ckpt/k"}
	if _, err := p.tryCollect(); !errs.Is(err, errs.Denied) {
		t.Errorf("%v", err)
	}
}

// failing refuses to give one object out.
type failing struct {
	blob.Store
	key string
}

func (f *failing) Get(ctx context.Context, key string, r blob.Range) (blob.Object, error) {
	if key == f.key {
		return blob.Object{}, errs.New(errs.Denied, "no")
	}
	return f.Store.Get(ctx, key, r)
}
