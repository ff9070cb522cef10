package gc_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/fsck"
	"github.com/sluice-platform/sluice/internal/disk/gc"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// liar is a store whose listings lack keys. It counts listings of the pool.
type liar struct {
	blob.Store
	hides func(listing int, key string) bool
	n     int
}

func (l *liar) List(ctx context.Context, prefix, after string, yield func(blob.Entry) bool) error {
	if after == "" && prefix == "" {
		l.n++
	}
	n := l.n
	return l.Store.List(ctx, prefix, after, func(e blob.Entry) bool {
		return l.hides(n, e.Key) || yield(e)
	})
}

// variety is a pool with everything that keeps anything from being collected, and with garbage.
func variety(t *testing.T) (p *pool, half map[string]bool) {
	p = newPool(t)
	p.create("disks/a")
	p.session("disks/a", func(d *disk.Disk) { p.write(d, 0, 'a'); p.checkpoint(d, "k") })
	p.fork("disks/a", "disks/b")
	p.session("disks/a", func(d *disk.Disk) { p.write(d, 0, 'b'); p.checkpoint(d, "two") })
	_, err := disk.PinMap(p.ctx, p.store, "disks/a", "mine", "two", "test")
	p.must(err)
	p.must(disk.RemoveCheckpoint(p.ctx, p.store, "disks/a", "two"))
	p.session("disks/a", func(d *disk.Disk) { p.write(d, 0, 'c'); p.checkpoint(d, "three") })
	half = map[string]bool{}
	for _, key := range p.keys() {
		half[key] = true
	}
	p.session("disks/b", func(d *disk.Disk) { p.write(d, 1, 'x'); p.checkpoint(d, "k") })
	p.fork("disks/b", "disks/c")
	p.must(disk.RemoveCheckpoint(p.ctx, p.store, "disks/b", "k"))
	for _, letter := range "yz" {
		p.session("disks/b", func(d *disk.Disk) { p.write(d, 1, byte(letter)) })
		p.session("disks/a", func(d *disk.Disk) { p.write(d, 0, byte(letter)) })
	}
	p.create("disks/x")
	p.session("disks/x", func(d *disk.Disk) { p.write(d, 0, 'q'); p.checkpoint(d, "k") })
	p.fork("disks/x", "disks/e")
	p.must(disk.Destroy(p.ctx, p.store, "disks/x", disk.DestroyOptions{}))
	return p, half
}

func (p *pool) keys() (keys []string) {
	p.must(p.store.List(p.ctx, "", "",
		func(e blob.Entry) bool { keys = append(keys, e.Key); return true }))
	return keys
}

// cloned returns a copy of the pool.
func (p *pool) cloned() *pool {
	c := *p
	c.store = memblob.New()
	for _, key := range p.keys() {
		obj, err := p.store.Get(p.ctx, key, blob.All())
		p.must(err)
		_, err = c.store.Put(p.ctx, key, obj.Data)
		p.must(err)
	}
	return &c
}

// lives returns why something of the variety is lost, or nil.
func (p *pool) lives() error {
	for _, path := range []string{"disks/a", "disks/b", "disks/c", "disks/e"} {
		r, err := fsck.Check(p.ctx, p.store, path, fsck.Options{Data: true, Unpinned: true})
		if err != nil {
			return err
		}
		if r.DamageCount > 0 {
			return fmt.Errorf("%s: %v", path, r.Damage)
		}
	}
	for _, x := range []struct{ path, checkpoint, letters string }{{"disks/a", "", "z"},
		{"disks/a", "k", "a"}, {"disks/a", "three", "c"},
		{"disks/b", "", "az"}, {"disks/c", "", "ax"}, {"disks/e", "", "q"}} {
		r, err := disk.OpenReadOnly(p.ctx, p.store, x.path, x.checkpoint,
			disk.ReadOnlyOptions{Unpinned: true})
		if err != nil {
			return err
		}
		got := make([]byte, len(x.letters)*disk.BlockSize)
		err = r.ReadAt(p.ctx, got, 0)
		_ = r.Close()
		for i := range x.letters {
			if err == nil && got[i*disk.BlockSize] != x.letters[i] {
				err = fmt.Errorf("%s %s reads %q", x.path, x.checkpoint, got[i*disk.BlockSize])
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lieKinds returns sets of keys that listings lack, by name.
func lieKinds(keys []string, half map[string]bool) map[string]func(string) bool {
	kinds := map[string]func(string) bool{"everything": func(string) bool { return true },
		"what is new": func(key string) bool { return !half[key] }}
	for _, part := range []string{"/head", "/ckpt/", "/refs/", "/pins/", "/map/", "/root", "/pages",
		"/log/", "/seg/", "/boot/",
		"disks/a/", "disks/b/", "disks/c/", "disks/x/", "disks/e/"} {
		kinds["all of "+part] = func(key string) bool { return strings.Contains(key, part) }
	}
	for _, d := range []string{"b", "c", "e"} {
		kinds["the fork "+d+" and its reference"] = func(key string) bool {
			return strings.HasPrefix(key, "disks/"+d+"/") ||
				strings.HasSuffix(key, "/refs/disks%2F"+d)
		}
	}
	for i, from := range keys {
		kinds["only "+from] = func(key string) bool { return key == from }
		kinds["from "+from+" on"] = func(key string) bool { return key >= from }
		for _, n := range []int{3, 20} {
			to := keys[min(i+n, len(keys)-1)]
			kinds[fmt.Sprint(n, " from ", from, " on")] = func(key string) bool {
				return key >= from && key < to
			}
		}
	}
	for seed := range uint64(20) {
		rng, hidden := rand.New(rand.NewPCG(seed, 9)), map[string]bool{}
		for _, key := range keys {
			hidden[key] = rng.Uint64N(20) <= seed%19
		}
		kinds[fmt.Sprint("random ", seed)] = func(key string) bool { return hidden[key] }
	}
	return kinds
}

// when is in which listings something is hidden, three to a collection. The first collection of
// some was told the truth.
var when = map[string]func(listing int) bool{
	"ever since the first mark":        func(n int) bool { return n > 3 },
	"in all but the second":            func(n int) bool { return n <= 3 || n > 6 },
	"in all but one":                   func(n int) bool { return n != 2 },
	"in the last of each mark":         func(n int) bool { return n%3 == 0 },
	"in the first of each mark":        func(n int) bool { return n%3 == 1 },
	"in the second and third of each":  func(n int) bool { return n%3 != 1 },
	"in the marks' own listings, also": nil,
}

// TestNoWrongListingMakesItDeleteWhatLives collects with listings that lack each single key, each
// stretch of keys, whole kinds, disks, and random ones: in some listings and in others not.
func TestNoWrongListingMakesItDeleteWhatLives(t *testing.T) {
	p, half := variety(t)
	honest := p.cloned()
	for range 4 {
		honest.collect()
	}
	p.must(honest.lives())
	if before, after := len(p.keys()), len(honest.keys()); after >= before {
		t.Fatalf("%d objects of %d are left: there is no garbage, and this proves nothing",
			after, before)
	}
	stopped, runs := 0, 0
	kinds := lieKinds(p.keys(), half)
	for name, hides := range kinds {
		for at, hidden := range when {
			l := &liar{Store: p.cloned().store}
			q := *p
			q.store = l
			l.hides = func(n int, key string) bool {
				if strings.HasPrefix(key, "collector/") {
					return hidden == nil && n == 9
				}
				if hidden == nil {
					return n > 3 && hides(key)
				}
				return hidden(n) && hides(key)
			}
			for i := range 4 {
				l.n = 3 * i
				if _, err := q.tryCollect(); errs.Is(err, errs.Unavailable) {
					stopped++
				} else if err != nil && !errs.Is(err, errs.NotFound) {
					t.Fatalf("hidden %s, %s: %v", name, at, err)
				}
			}
			runs++
			q.store = l.Store
			if err := q.lives(); err != nil {
				t.Errorf("hidden %s, %s: %v", name, at, err)
			}
		}
		if t.Failed() {
			return
		}
	}
	t.Logf(
		"RESULT wrong listings: %d kinds, %d runs of four collections, %d stopped by name, nothing that lives was deleted", len(kinds), runs, stopped)
}

// TestAListingThatNeverShowedALivingHeadIsNotBelieved hides what is known by other ways from all
// listings, ever.
func TestAListingThatNeverShowedALivingHeadIsNotBelieved(t *testing.T) {
	p, half := variety(t)
	all := p.keys()
	kinds := lieKinds(all, half)
	safe := 0
	for name, hides := range kinds {
		// A disk is known by any of its keys, or by its reference; a checkpoint, a reference or a
		// pin by its own key, but for those that forks tell of.
		shown := slices.DeleteFunc(slices.Clone(all), hides)
		known := func(path string) bool {
			return slices.ContainsFunc(shown,
				func(key string) bool { return strings.HasPrefix(key, path+"/") })
		}
		head, document := false, false
		for _, key := range all {
			path, isHead := strings.CutSuffix(key, "/head")
			head = head || hides(key) && isHead && known(path)
			for _, kind := range []string{"/ckpt/", "/refs/", "/pins/"} {
				document = document || hides(key) && strings.Contains(key, kind)
			}
		}
		if document && !head {
			continue
		}
		safe++
		q := *p
		l := &liar{Store: p.cloned().store,
			hides: func(_ int, key string) bool { return hides(key) }}
		q.store = l
		for range 4 {
			_, err := q.tryCollect()
			if head && !errs.Is(err, errs.Unavailable) {
				t.Errorf("hidden %s: a head is there and isn't listed: %v", name, err)
			}
		}
		q.store = l.Store
		if err := q.lives(); err != nil {
			t.Errorf("hidden %s: %v", name, err)
		}
	}
	t.Logf("RESULT wrong listings from the beginning: %d of %d kinds", safe, len(kinds))
}

// TestAListingThatEndsEarlyIsGoneOnWith has a store answer every listing with a few keys, as if
// that were all.
func TestAListingThatEndsEarlyIsGoneOnWith(t *testing.T) {
	p, _ := variety(t)
	q := *p
	q.store = &curt{Store: p.store}
	for range 4 {
		q.collect(func(o *gc.Options) { o.Grace = 30 * time.Minute })
	}
	p.must(p.lives())
}

// curt is a store whose listings end after three keys.
type curt struct{ blob.Store }

func (c *curt) List(ctx context.Context, prefix, after string, yield func(blob.Entry) bool) error {
	n := 0
	return c.Store.List(ctx, prefix, after, func(e blob.Entry) bool {
		n++
		return n <= 3 && yield(e)
	})
}
