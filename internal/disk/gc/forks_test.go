package gc_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk"
)

// line makes a, b forked from a, and c forked from b.
func (p *pool) line() {
	p.t.Helper()
	p.create("disks/a")
	p.session("disks/a", func(d *disk.Disk) { p.write(d, 0, 'a'); p.checkpoint(d, "k") })
	p.fork("disks/a", "disks/b")
	p.session("disks/b", func(d *disk.Disk) { p.write(d, 1, 'b'); p.checkpoint(d, "k") })
	p.fork("disks/b", "disks/c")
	p.session("disks/c", func(d *disk.Disk) { p.write(d, 2, 'c') })
}

func (p *pool) fork(path, child string) {
	p.t.Helper()
	_, err := disk.Fork(p.ctx, p.store, path, "k", child, disk.ForkOptions{})
	p.must(err)
}

// TestADestroyedForkStaysRegisteredForItsForks destroys a line of forks from the middle: a
// reference to a disk that is gone is all that tells the destruction of the first that the last
// needs it.
func TestADestroyedForkStaysRegisteredForItsForks(t *testing.T) {
	p := newPool(t)
	p.line()
	p.create("other")
	p.must(disk.Destroy(p.ctx, p.store, "disks/b", disk.DestroyOptions{}))
	for range 3 {
		p.collect()
	}
	p.noGarbage("disks/a", "disks/c")
	p.must(disk.Destroy(p.ctx, p.store, "disks/a", disk.DestroyOptions{}))
	for range 3 {
		p.collect()
	}
	p.reads("disks/c", "", "abc")
	p.must(disk.Destroy(p.ctx, p.store, "disks/c", disk.DestroyOptions{}))
	for range 4 {
		p.collect()
	}
	if n := p.count("disks/"); n != 0 {
		t.Errorf("%d objects are left of three destroyed disks", n)
	}
}

// TestAReaderOfADestroyedForkKeepsItsAncestors is the same with a reader in the place of the last
// fork.
func TestAReaderOfADestroyedForkKeepsItsAncestors(t *testing.T) {
	p := newPool(t)
	p.line()
	p.must(disk.Destroy(p.ctx, p.store, "disks/c", disk.DestroyOptions{}))
	r, err := disk.OpenReadOnly(p.ctx, p.store, "disks/b", "k", disk.ReadOnlyOptions{})
	p.must(err)
	defer func() { p.must(r.Close()) }()
	p.must(disk.Destroy(p.ctx, p.store, "disks/b", disk.DestroyOptions{}))
	p.collect()
	p.collect()
	p.must(disk.Destroy(p.ctx, p.store, "disks/a", disk.DestroyOptions{}))
	p.deviceReads(r, "ab")
}

// TestReferencesOfAWholeLineAreWrittenAgain loses them all.
func TestReferencesOfAWholeLineAreWrittenAgain(t *testing.T) {
	p := newPool(t)
	p.line()
	p.must(disk.Destroy(p.ctx, p.store, "disks/b", disk.DestroyOptions{}))
	p.loseAll("disks/a/refs/disks%2Fb")
	p.loseAll("disks/b/refs/disks%2Fc")
	p.collect()
	if a, b := p.count("disks/a/refs/"), p.count("disks/b/refs/"); a != 1 || b != 1 {
		t.Errorf("%d and %d references", a, b)
	}
	p.must(disk.Destroy(p.ctx, p.store, "disks/a", disk.DestroyOptions{}))
	p.reads("disks/c", "", "abc")
}

// newPoolOfTwo returns a pool with disks/a, which has a checkpoint k, and a disk that has nothing
// to do with it.
func newPoolOfTwo(t *testing.T) *pool {
	p := newPool(t)
	p.create("other")
	p.session("other", func(d *disk.Disk) { p.write(d, 0, 'x') })
	p.create("disks/a")
	p.session("disks/a", func(d *disk.Disk) { p.write(d, 0, 'a'); p.checkpoint(d, "k") })
	return p
}

// TestAForkThatFailedStopsNoCollector leaves the head of a fork whose checkpoint and map are gone,
// as one does that dies before it has looked at its checkpoint again. What it was forked from is
// held until it is destroyed; the rest of the pool isn't.
func TestAForkThatFailedStopsNoCollector(t *testing.T) {
	p := newPoolOfTwo(t)
	p.fork("disks/a", "disks/b")
	head, err := p.store.Get(p.ctx, "disks/b/head", blob.All())
	p.must(err)
	// not there yet, for whoever looks
	p.must(disk.Destroy(p.ctx, p.store, "disks/b", disk.DestroyOptions{}))
	p.must(disk.RemoveCheckpoint(p.ctx, p.store, "disks/a", "k"))
	p.session("disks/a", func(d *disk.Disk) { p.write(d, 0, 'A') })
	p.collect()
	p.collect()
	_, err = p.store.PutIfAbsent(p.ctx, "disks/b/head", head.Data)
	p.must(err)
	for _, path := range []string{"disks/a", "other"} {
		p.session(path, func(d *disk.Disk) { p.write(d, 0, 'B') })
	}
	held := p.count("disks/a/map/")
	p.collect()
	r := p.collect()
	if r.Freed.Total().Objects == 0 {
		t.Errorf("nothing of the other disk was freed: %+v", r)
	}
	if n := p.count("disks/a/map/"); n != held {
		t.Errorf("%d of %d objects of the fork's parent are left", n, held)
	}
	if !slices.ContainsFunc(r.Notes,
		func(s string) bool { return strings.Contains(s, "sluice disk destroy disks/b") }) {
		t.Errorf("no remedy in %q", r.Notes)
	}
	p.must(disk.Destroy(p.ctx, p.store, "disks/b", disk.DestroyOptions{}))
	p.collect()
	p.collect()
	p.noGarbage("disks/a", "other")
	p.reads("disks/a", "", "B")
}

// TestANameLeftBehindStopsNoCollector leaves a checkpoint of a disk that was destroyed while its
// writer was naming it. The same of a disk that is there keeps all of it.
func TestANameLeftBehindStopsNoCollector(t *testing.T) {
	p := newPoolOfTwo(t)
	name, err := p.store.Get(p.ctx, "disks/a/ckpt/k", blob.All())
	p.must(err)
	p.must(disk.Destroy(p.ctx, p.store, "disks/a", disk.DestroyOptions{}))
	_, err = p.store.PutIfAbsent(p.ctx, "disks/a/ckpt/k", name.Data)
	p.must(err)
	p.session("other", func(d *disk.Disk) { p.write(d, 0, 'X') })
	p.collect()
	r := p.collect()
	if r.Freed["ckpt"].Objects != 1 || r.Freed["map"].Objects == 0 || p.count("disks/a/") != 0 {
		t.Errorf("freed %+v, left %d objects of the destroyed disk", r.Freed, p.count("disks/a/"))
	}
	p.noGarbage("other")
	p.create("disks/b")
	p.session("disks/b", func(d *disk.Disk) { p.write(d, 0, 'b'); p.checkpoint(d, "k") })
	p.session("disks/b", func(d *disk.Disk) { p.write(d, 0, 'B') })
	p.must(p.store.Delete(p.ctx, "disks/b/map/0000000000000001-00000001/root"))
	for range 3 {
		if r := p.collect(); r.Doubts != 1 || r.Doubtful[0].Object != "disks/b/ckpt/k" {
			t.Errorf("a checkpoint of a disk that has its head: %+v", r.Doubtful)
		}
	}
}

// TestADamagedForkKeepsAllOfItsLine loses the map of a fork that was attached, and of one whose
// checkpoint is there.
func TestADamagedForkStopsTheCollector(t *testing.T) {
	for _, attached := range []bool{true, false} {
		p := newPool(t)
		p.create("disks/a")
		p.session("disks/a", func(d *disk.Disk) { p.write(d, 0, 'a'); p.checkpoint(d, "k") })
		p.fork("disks/a", "disks/b")
		if attached {
			p.session("disks/b", func(*disk.Disk) {})
			p.must(disk.RemoveCheckpoint(p.ctx, p.store, "disks/a", "k"))
		}
		p.loseAll("/root")
		before := p.count("disks/")
		for range 3 {
			if r := p.collect(); r.Doubts == 0 || r.Freed.Total().Objects > 0 {
				t.Errorf("attached %v: %+v", attached, r)
			}
		}
		if n := p.count("disks/"); n != before {
			t.Errorf("attached %v: %d of %d objects are left", attached, n, before)
		}
	}
}
