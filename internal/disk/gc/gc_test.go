package gc_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/fsck"
	"github.com/sluice-platform/sluice/internal/disk/gc"
	"github.com/sluice-platform/sluice/internal/disk/kek"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// pool is a store and a clock that only tests move.
type pool struct {
	t     *testing.T
	ctx   context.Context
	store blob.Store
	now   time.Time
}

func newPool(t *testing.T) *pool {
	return &pool{t: t, ctx: t.Context(), store: memblob.New(),
		now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
}

func (p *pool) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// collect makes one collection, an hour after the one before.
func (p *pool) collect(change ...func(*gc.Options)) *gc.Report {
	p.t.Helper()
	r, err := p.tryCollect(change...)
	p.must(err)
	return r
}

func (p *pool) tryCollect(change ...func(*gc.Options)) (*gc.Report, error) {
	p.now = p.now.Add(time.Hour)
	o := gc.Options{Grace: time.Hour, Now: func() time.Time { return p.now }}
	for _, f := range change {
		f(&o)
	}
	return gc.Collect(p.ctx, p.store, o)
}

func (p *pool) create(path string, change ...func(*disk.CreateOptions)) {
	p.t.Helper()
	o := disk.CreateOptions{Size: 1 << 20}
	for _, f := range change {
		f(&o)
	}
	_, err := disk.Create(p.ctx, p.store, path, o)
	p.must(err)
}

// session attaches, runs f and closes.
func (p *pool) session(path string, f func(d *disk.Disk)) {
	p.t.Helper()
	d := p.attach(path)
	f(d)
	p.must(d.Close(p.ctx))
}

func (p *pool) attach(path string, change ...func(*disk.AttachOptions)) *disk.Disk {
	p.t.Helper()
	h, err := disk.ReadHead(p.ctx, p.store, path)
	p.must(err)
	o := disk.AttachOptions{Generation: h.Generation + 1, Holder: "test"}
	o.BootWindow = -1
	for _, f := range change {
		f(&o)
	}
	d, err := disk.Attach(p.ctx, p.store, path, o)
	p.must(err)
	p.t.Cleanup(d.Abandon)
	return d
}

// write writes a block of one letter, and makes an object of it.
func (p *pool) write(d *disk.Disk, block int64, letter byte) {
	p.t.Helper()
	p.must(d.WriteAt(p.ctx, bytes.Repeat([]byte{letter}, disk.BlockSize), block*disk.BlockSize))
	p.must(d.Flush(p.ctx))
}

func (p *pool) checkpoint(d *disk.Disk, name string) {
	p.t.Helper()
	_, err := d.Checkpoint(p.ctx, name)
	p.must(err)
}

// reads fails unless the disk, or its checkpoint, has the letters in its first blocks.
func (p *pool) reads(path, checkpoint, letters string) {
	p.t.Helper()
	r, err := disk.OpenReadOnly(p.ctx, p.store, path, checkpoint, disk.ReadOnlyOptions{})
	p.must(err)
	defer func() { p.must(r.Close()) }()
	p.deviceReads(r, letters)
}

func (p *pool) deviceReads(r disk.Device, letters string) {
	p.t.Helper()
	got := make([]byte, len(letters)*disk.BlockSize)
	p.must(r.ReadAt(p.ctx, got, 0))
	for i := range letters {
		if b := got[i*disk.BlockSize:][:disk.BlockSize]; !bytes.Equal(b,
			bytes.Repeat([]byte{letters[i]}, disk.BlockSize)) {
			p.t.Fatalf("block %d is %q, want %q", i, b[0], letters[i])
		}
	}
}

func (p *pool) count(prefix string) (n int) {
	p.t.Helper()
	p.must(p.store.List(p.ctx, prefix, "", func(blob.Entry) bool { n++; return true }))
	return n
}

// noGarbage fails unless fsck finds nothing unreachable, and nothing damaged.
func (p *pool) noGarbage(paths ...string) {
	p.t.Helper()
	for _, path := range paths {
		r, err := fsck.Check(p.ctx, p.store, path, fsck.Options{Data: true,
			Garbage: func(key string, _ int64) { p.t.Logf("unreachable: %s", key) }})
		p.must(err)
		if r.DamageCount > 0 || r.Garbage().Objects > 0 {
			p.t.Fatalf("%s: damage %v, garbage %+v", path, r.Damage, r.Unreachable)
		}
	}
}

func TestCollectsWhatTwoMarksFoundDead(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		t.Run(fmt.Sprint("encrypted=", encrypted), func(t *testing.T) {
			p := newPool(t)
			var key disk.KEK
			if encrypted {
				k, err := kek.New([32]byte{7})
				p.must(err)
				key = k
			}
			p.create("disks/a", func(o *disk.CreateOptions) { o.Key = key })
			for i := range 4 {
				d := p.attach("disks/a", func(o *disk.AttachOptions) { o.Key = key })
				for b := range int64(4) {
					p.write(d, b, byte('a'+i))
				}
				p.must(d.Close(p.ctx))
			}
			before := p.count("")
			dry := p.collect(func(o *gc.Options) { o.DryRun = true })
			if dry.Waiting.Total().Objects == 0 || dry.Freed.Total().Objects != 0 ||
				p.count("") != before {
				t.Fatalf("a dry run: %+v, %d objects of %d", dry, p.count(""), before)
			}
			first := p.collect()
			if first.Freed.Total().Objects != 0 || first.Marked != nil || first.Next == nil ||
				p.count("disks/") != before {
				t.Fatalf("deleted after one mark: %+v", first)
			}
			early := p.collect(func(o *gc.Options) { o.Grace = 2 * time.Hour })
			if early.Freed.Total().Objects != 0 {
				t.Fatalf("deleted within the grace: %+v", early)
			}
			r := p.collect()
			if r.Freed.Total().Objects != dry.Waiting.Total().Objects ||
				r.Freed.Total().Bytes != dry.Waiting.Total().Bytes {
				t.Fatalf("freed %+v, of %+v", r.Freed, dry.Waiting)
			}
			if before-p.count("disks/") != r.Freed.Total().Objects {
				t.Fatalf("%d objects of %d are left, %d were freed", p.count("disks/"), before,
					r.Freed.Total().Objects)
			}
			if !encrypted {
				p.reads("disks/a", "", "dddd")
				p.noGarbage("disks/a")
			}
			d := p.attach("disks/a", func(o *disk.AttachOptions) { o.Key = key })
			p.deviceReads(d, "dddd")
			p.must(d.Close(p.ctx))
		})
	}
}

func TestKeepsWhatIsReached(t *testing.T) {
	p := newPool(t)
	p.create("disks/a")
	p.session("disks/a", func(d *disk.Disk) { p.write(d, 0, 'a'); p.checkpoint(d, "one") })
	p.session("disks/a", func(d *disk.Disk) { p.write(d, 0, 'b'); p.checkpoint(d, "two") })
	// another prefix
	_, err := disk.Fork(p.ctx, p.store, "disks/a", "one", "elsewhere/forks/b", disk.ForkOptions{})
	p.must(err)
	p.session("elsewhere/forks/b",
		func(d *disk.Disk) { p.write(d, 1, 'x'); p.checkpoint(d, "three") })
	_, err = disk.Fork(p.ctx, p.store, "elsewhere/forks/b", "three", "disks/c", disk.ForkOptions{})
	p.must(err)
	p.session("disks/a", func(d *disk.Disk) { p.write(d, 0, 'c') })
	p.must(disk.RemoveCheckpoint(p.ctx, p.store, "disks/a", "one"))
	_, err = disk.PinMap(p.ctx, p.store, "disks/a", "mine", "two", "test")
	p.must(err)
	p.must(disk.RemoveCheckpoint(p.ctx, p.store, "disks/a", "two"))
	for range 3 {
		p.collect()
	}
	p.reads("disks/a", "", "c")
	p.reads("elsewhere/forks/b", "", "ax")
	p.reads("disks/c", "", "ax")
	p.noGarbage("disks/a", "elsewhere/forks/b", "disks/c")

	held := p.count("disks/a/")
	p.must(disk.Unpin(p.ctx, p.store, "disks/a", "mine"))
	p.collect()
	p.collect()
	if n := p.count("disks/a/"); n >= held-1 {
		t.Errorf("%d objects of %d are left without the pin", n, held)
	}

	// The middle of a line of forks goes, and the parent: what the last one needs stays, and goes
	// with it.
	p.must(disk.Destroy(p.ctx, p.store, "elsewhere/forks/b", disk.DestroyOptions{}))
	p.must(disk.Destroy(p.ctx, p.store, "disks/a", disk.DestroyOptions{}))
	for range 3 {
		p.collect()
	}
	p.reads("disks/c", "", "ax")
	p.must(disk.Destroy(p.ctx, p.store, "disks/c", disk.DestroyOptions{}))
	p.create("disks/other") // a pool without a single disk is none
	for range 4 {
		p.collect()
	}
	for _, path := range []string{"disks/a/", "elsewhere/", "disks/c/"} {
		if n := p.count(path); n != 0 {
			t.Errorf("%d objects are left below %s", n, path)
		}
	}
}

// TestKeepsWhatIsInFlight collects beside a writer with objects that no head knows yet, and beside
// a log that only a replay knows.
func TestKeepsWhatIsInFlight(t *testing.T) {
	p := newPool(t)
	p.create("disks/a")
	p.session("disks/a", func(d *disk.Disk) { p.write(d, 0, 'a') })
	d := p.attach("disks/a")
	p.write(d, 1, 'b')
	p.collect()
	p.collect()
	p.write(d, 2, 'c')
	p.collect()
	d.Abandon() // it dies
	p.collect()
	d = p.attach("disks/a")
	p.deviceReads(d, "abc")
	p.must(d.Close(p.ctx))
	for range 3 {
		p.collect()
	}
	p.reads("disks/a", "", "abc")
	fences := p.count(fmt.Sprintf("disks/a/log/%016x/", 2))
	if fences == 0 {
		t.Error("the fence of the dead writer's log is gone")
	}
	p.noGarbage("disks/a")
}

func TestReadersAreHeeded(t *testing.T) {
	p := newPool(t)
	p.create("disks/a")
	p.session("disks/a", func(d *disk.Disk) { p.write(d, 0, 'a'); p.checkpoint(d, "c") })
	r, err := disk.OpenReadOnly(p.ctx, p.store, "disks/a", "c", disk.ReadOnlyOptions{})
	p.must(err)
	p.session("disks/a", func(d *disk.Disk) { p.write(d, 0, 'b') })
	p.must(disk.RemoveCheckpoint(p.ctx, p.store, "disks/a", "c"))
	// The clock of this test moves, the reader's doesn't, so that it would be taken for dead: renew
	// what it has.
	p.collect(func(o *gc.Options) { o.Grace = 5 * time.Minute })
	p.now = p.now.Add(-time.Hour + 10*time.Minute)
	rep := p.collect(func(o *gc.Options) { o.Grace = 5 * time.Minute })
	if rep.Freed.Total().Objects != 0 || rep.Pins != 1 {
		t.Fatalf("%+v", rep)
	}
	p.deviceReads(r, "a")
	// A reader that is dead: nobody has written its pin for twice its lease.
	rep = p.collect()
	if rep.Freed["pins"].Objects != 1 {
		t.Fatalf("%+v", rep)
	}
	p.collect()
	if rep = p.collect(); p.count("disks/a/pins/") != 0 {
		t.Fatalf("%+v", rep)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	p.noGarbage("disks/a")
}

// TestAPinOfEverythingHoldsAncestors removes what a restore is just about to look at.
func TestAPinOfEverythingHoldsAncestors(t *testing.T) {
	p := newPool(t)
	p.create("disks/a")
	p.session("disks/a", func(d *disk.Disk) { p.write(d, 0, 'a'); p.checkpoint(d, "c") })
	_, err := disk.Fork(p.ctx, p.store, "disks/a", "c", "disks/b", disk.ForkOptions{})
	p.must(err)
	p.must(disk.RemoveCheckpoint(p.ctx, p.store, "disks/a", "c"))
	p.must(disk.Destroy(p.ctx, p.store, "disks/a", disk.DestroyOptions{}))
	p.session("disks/b", func(d *disk.Disk) { p.write(d, 0, 'b') })
	body := []byte(`{"version":1,"id":"lease-x","nonce":"N","holder":"t","lease_ms":86400000,"all":true,
		"created":"2030-01-01T00:00:00Z","renewed":"2030-01-01T00:00:00Z"}`)
	_, err = p.store.Put(p.ctx, "disks/b/pins/lease-x", body)
	p.must(err)
	before := p.count("disks/a/")
	for range 3 {
		if r := p.collect(); r.Freed.Total().Objects != 0 || r.Kept[gc.KeptPinned].Objects == 0 {
			t.Fatalf("%+v", r)
		}
	}
	if n := p.count("disks/a/"); n != before {
		t.Errorf("%d of %d", n, before)
	}
	p.must(p.store.Delete(p.ctx, "disks/b/pins/lease-x"))
	p.collect()
	p.collect()
	if n := p.count("disks/a/log/"); n != 0 {
		t.Errorf("%d log objects are left", n)
	}
}

func TestStopsAtWhatItCannotRead(t *testing.T) {
	broken := func(key, body string) func(p *pool) { // its name must be in the error
		return func(p *pool) {
			_, err := p.store.Put(p.ctx, key, []byte(body))
			p.must(err)
		}
	}
	good := func(p *pool, key string) string {
		o, err := p.store.Get(p.ctx, key, blob.All())
		p.must(err)
		return string(o.Data)
	}
	for name, tc := range map[string]struct {
		kind errs.Kind
		key  string
		f    func(p *pool)
	}{
		"head": {errs.Corrupt, "disks/x/head", broken("disks/x/head", "{")},
		"newer head": {errs.Unsupported, "disks/x/head",
			broken("disks/x/head", `{"version":2}`)},
		"new feature": {errs.Unsupported, "disks/x/head",
			broken("disks/x/head", `{"version":1,"features":["holograms"]}`)},
		"mark": {errs.Corrupt, "collector/mark-x", broken("collector/mark-x", "no mark")},
		"a copied disk": {errs.Corrupt, "disks/copy/head",
			func(p *pool) { broken("disks/copy/head", good(p, "disks/a/head"))(p) }},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPool(t)
			p.create("disks/a")
			p.session("disks/a", func(d *disk.Disk) { p.write(d, 0, 'a'); p.checkpoint(d, "c") })
			p.session("disks/a", func(d *disk.Disk) { p.write(d, 0, 'b') })
			p.session("disks/a", func(d *disk.Disk) { p.write(d, 0, 'd') })
			p.collect()
			tc.f(p)
			before := p.count("")
			r, err := p.tryCollect()
			if !errs.Is(err, tc.kind) || r != nil || !strings.Contains(err.Error(), tc.key) ||
				errs.RemedyOf(err) == "" {
				t.Fatalf("%v (%s), remedy %q, report %+v", err, errs.KindOf(err),
					errs.RemedyOf(err), r)
			}
			if n := p.count(""); n != before {
				t.Fatalf("%d objects of %d are left", n, before)
			}
		})
	}
	p := newPool(t)
	if _, err := p.tryCollect(); !errs.Is(err, errs.NotFound) {
		t.Fatalf("an empty store: %v", err)
	}
}

// loseAll deletes all objects whose keys end so.
func (p *pool) loseAll(suffix string) {
	p.t.Helper()
	var keys []string
	p.must(p.store.List(p.ctx, "", "", func(e blob.Entry) bool {
		if strings.HasSuffix(e.Key, suffix) {
			keys = append(keys, e.Key)
		}
		return true
	}))
	for _, k := range keys {
		p.must(p.store.Delete(p.ctx, k))
	}
}

// TestLeavesOthersAlone has objects of somebody else in the pool, some with names like a disk's.
func TestLeavesOthersAlone(t *testing.T) {
	p := newPool(t)
	p.create("disks/a")
	p.session("disks/a", func(d *disk.Disk) {
		p.write(d, 0, 'a')
		p.checkpoint(d,
			"head")
		p.checkpoint(d, "machine.json")
	})
	p.session("disks/a", func(d *disk.Disk) { p.write(d, 0, 'b') })
	others := []string{"releases/abc", fmt.Sprintf("audit/log/%016x/%016x", 1, 2),
		fmt.Sprintf("x/map/%016x-%08x/root", 1, 2), "disks/a/notes",
		"disks/a/log/x/y", "machines/m/machine.json"}
	for _, key := range others {
		_, err := p.store.Put(p.ctx, key, []byte("not of a disk, and long enough"))
		p.must(err)
	}
	for range 4 {
		p.collect()
	}
	for _, key := range others {
		if _, err := p.store.Get(p.ctx, key, blob.All()); err != nil {
			t.Error(err)
		}
	}
	p.reads("disks/a", "head", "a")
	p.reads("disks/a", "machine.json", "a")
	p.reads("disks/a", "", "b")
}

// TestPathsLikeFolders has disks whose paths end as the folders of a disk are called. Their
// documents are found like any other's, and their garbage is collected.
func TestPathsLikeFolders(t *testing.T) {
	for path, checkpoint := range map[string]string{"disks/log": "v1", "disks/map": "root",
		"disks/seg": "v1", "log/boot": "v1"} {
		p := newPool(t)
		p.create(path)
		p.session(path, func(d *disk.Disk) { p.write(d, 0, 'a'); p.checkpoint(d, checkpoint) })
		p.session(path, func(d *disk.Disk) { p.write(d, 0, 'b') })
		before := p.count(path)
		for range 3 {
			if r, err := p.tryCollect(); err != nil || r.Kept[gc.KeptUnknown].Objects > 0 {
				t.Fatalf("collect a pool with a disk at %s: %v, %+v", path, err, r)
			}
		}
		p.reads(path, checkpoint, "a")
		p.reads(path, "", "b")
		p.must(disk.RemoveCheckpoint(p.ctx, p.store, path, checkpoint))
		for range 3 {
			p.collect()
		}
		if n := p.count(path); n >= before-1 {
			t.Fatalf("%d objects of %d are left of %s without its checkpoint", n, before, path)
		}
		p.noGarbage(path)
	}
}

// TestReferences removes a reference only when its fork is gone for good, and writes one that was
// lost.
func TestReferences(t *testing.T) {
	p := newPool(t)
	p.create("disks/a")
	p.session("disks/a", func(d *disk.Disk) { p.write(d, 0, 'a'); p.checkpoint(d, "c") })
	for _, child := range []string{"disks/b", "disks/" + strings.Repeat("long", 60)} {
		_, err := disk.Fork(p.ctx, p.store, "disks/a", "c", child, disk.ForkOptions{})
		p.must(err)
		p.collect()
		p.collect()
		if n := p.count("disks/a/refs/"); n != 1 {
			t.Fatalf("%d references", n)
		}
		p.loseAll("disks/a/refs/disks%2Fb") // as a collector may do to a fork that took long
		p.collect()
		if n := p.count("disks/a/refs/"); n != 1 {
			t.Fatalf("%d references", n)
		}
		p.must(disk.Destroy(p.ctx, p.store, child, disk.DestroyOptions{}))
		p.collect()
		if n := p.count("disks/a/refs/"); n != 1 {
			t.Fatalf("%d references after one mark", n)
		}
		p.collect()
		if n := p.count("disks/a/refs/"); n != 0 {
			t.Fatalf("%d references", n)
		}
	}
}

// TestAMarkIsAsOldAsItsEnd makes a mark that takes half an hour: two marks are a grace apart from
// the end of the first on.
func TestAMarkIsAsOldAsItsEnd(t *testing.T) {
	p := newPool(t)
	p.create("disks/a")
	for _, letter := range "ab" {
		p.session("disks/a", func(d *disk.Disk) { p.write(d, 0, byte(letter)) })
	}
	p.collect(func(o *gc.Options) {
		at := p.now.Add(-30 * time.Minute)
		o.Now = func() time.Time { at = at.Add(30 * time.Minute); return at }
	})
	if r := p.collect(); r.Freed.Total().Objects != 0 || r.Waiting.Total().Objects == 0 {
		t.Errorf("half an hour after the first ended: %+v", r)
	}
	if r := p.collect(); r.Freed.Total().Objects == 0 {
		t.Errorf("an hour later: %+v", r)
	}
}

// TestMarksAreBounded collects much more often than the grace is long.
func TestMarksAreBounded(t *testing.T) {
	p := newPool(t)
	p.create("disks/a")
	for i := range 40 {
		p.session("disks/a", func(d *disk.Disk) { p.write(d, 0, byte('a'+i%26)) })
		p.collect(func(o *gc.Options) { o.Grace = 10 * time.Hour })
		if n := p.count("collector/"); n > 7 {
			t.Fatalf("%d marks", n)
		}
	}
	if n := p.count("disks/"); n > 100 {
		t.Errorf("%d objects", n)
	}
	p.reads("disks/a", "", "n")
}

// TestSpaceComesBack trims half of a disk in small pieces, which leaves no object without something
// live in it: what the store holds falls after compaction and collection, and not before.
func TestSpaceComesBack(t *testing.T) {
	const size, piece = 16 << 20, 64 << 10
	p := newPool(t)
	p.create("disks/a", func(o *disk.CreateOptions) { o.Size = size })
	rng := rand.New(rand.NewPCG(3, 4))
	noise := make([]byte, size)
	for i := 0; i < size; i += 8 {
		binary.LittleEndian.PutUint64(noise[i:], rng.Uint64())
	}
	p.session("disks/a", func(d *disk.Disk) {
		for off := int64(0); off < size; off += 1 << 20 {
			p.must(d.WriteAt(p.ctx, noise[off:off+1<<20], off))
		}
		p.must(d.Flush(p.ctx))
	})
	full := p.bytes()
	p.session("disks/a", func(d *disk.Disk) {
		for off := int64(0); off < size; off += 2 * piece {
			p.must(d.Trim(p.ctx, off, piece))
			clear(noise[off : off+piece])
		}
	})
	trimmed := p.bytes()
	p.collect()
	p.collect()
	uncompacted := p.bytes()
	p.session("disks/a", func(d *disk.Disk) {
		_, err := d.Compact(p.ctx, disk.CompactOptions{})
		p.must(err)
	})
	compacted := p.bytes()
	for range 3 {
		p.collect()
	}
	collected := p.bytes()
	t.Logf(
		"RESULT disk space: full %d KiB, half trimmed %d, collected %d, compacted %d, collected %d: %.2f times what is live",
		full>>10, trimmed>>10, uncompacted>>10, compacted>>10, collected>>10,
		float64(collected)/(size/2))
	if uncompacted < full*9/10 || compacted < full {
		t.Errorf("this test shows nothing: %d, %d, %d", full, uncompacted, compacted)
	}
	if float64(collected) > 1.3*size/2 {
		t.Errorf("%d bytes are stored for %d that are live", collected, size/2)
	}
	d := p.attach("disks/a")
	got := make([]byte, size)
	p.must(d.ReadAt(p.ctx, got, 0))
	if !bytes.Equal(got, noise) {
		t.Error("the content is another one")
	}
	p.must(d.Close(p.ctx))
}

// bytes returns what the store holds.
func (p *pool) bytes() (n int64) {
	p.t.Helper()
	p.must(p.store.List(p.ctx, "disks/", "", func(e blob.Entry) bool { n += e.Size; return true }))
	return n
}

// TestCollectsBesideABusyWriter writes, trims and compacts in the background while collectors run,
// two at a time.
func TestCollectsBesideABusyWriter(t *testing.T) {
	const size = 2 << 20
	p := newPool(t)
	p.create("disks/a", func(o *disk.CreateOptions) { o.Size = size })
	want := make([]byte, size)
	rng := rand.New(rand.NewPCG(5, 6))
	freed := 0
	for range 3 {
		d := p.attach("disks/a", func(o *disk.AttachOptions) {
			o.ObjectBytes, o.CheckpointObjects, o.CompactBytes, o.CompactShare,
				o.FrameBytes = 64<<10, 4, 64<<10, 10, 1
		})
		for range 40 {
			off := rng.Int64N(size/4096) * 4096
			n := min(size-off, 4096*(1+rng.Int64N(16)))
			if rng.IntN(4) == 0 {
				clear(want[off : off+n])
				p.must(d.Trim(p.ctx, off, n))
			} else {
				for i := off; i < off+n; i += 8 {
					binary.LittleEndian.PutUint64(want[i:], rng.Uint64())
				}
				p.must(d.WriteAt(p.ctx, want[off:off+n], off))
			}
			p.must(d.Flush(p.ctx))
			if rng.IntN(5) == 0 {
				p.now = p.now.Add(time.Hour)
				var g errgroup.Group
				var mu sync.Mutex
				for range 2 {
					g.Go(func() error {
						r, err := gc.Collect(p.ctx, p.store,
							gc.Options{Grace: time.Hour, Now: func() time.Time { return p.now }})
						if err == nil {
							mu.Lock()
							defer mu.Unlock()
							freed += r.Freed.Total().Objects
						}
						return err
					})
				}
				p.must(g.Wait())
			}
		}
		got := make([]byte, size)
		p.must(d.ReadAt(p.ctx, got, 0))
		if !bytes.Equal(got, want) {
			t.Fatal("a collector took something away")
		}
		p.must(d.Close(p.ctx))
	}
	if freed == 0 {
		t.Error("nothing was ever freed")
	}
	p.session("disks/a", func(*disk.Disk) {})
	for range 3 {
		p.collect()
	}
	p.noGarbage("disks/a")
}
