package fsck_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/fsck"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const (
	parent = "disks/parent"
	child  = "disks/child"
	size   = 4 << 20
)

func testCtx(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// world is a store with disks in it, and what their heads and checkpoints are to read as.
type world struct {
	t     *testing.T
	store blob.Store
	want  map[string][]byte // path, or path@checkpoint
}

// noMaps is a store that takes no map, so that a session leaves nothing but its log, however fast
// it is.
type noMaps struct{ blob.Store }

func (s noMaps) PutIfAbsent(ctx context.Context, key string, body []byte) (blob.ETag, error) {
	if strings.Contains(key, "/map/") {
		return "", errs.New(errs.Unavailable, "no maps")
	}
	return s.Store.PutIfAbsent(ctx, key, body)
}

func (w *world) attach(store blob.Store, path string, generation uint64) *disk.Disk {
	w.t.Helper()
	d, err := disk.Attach(testCtx(w.t), store, path,
		disk.AttachOptions{Generation: generation, Holder: fmt.Sprint("vm-", generation),
			Tuning: disk.Tuning{ObjectBytes: 128 << 10, DirtyBytes: 1 << 20, CheckpointObjects: 8,
				Revalidate: -1, SealInterval: time.Hour}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(d.Abandon)
	return d
}

// churn changes a disk and its oracle at random, and flushes.
func (w *world) churn(d *disk.Disk, path string, seed uint64) {
	w.t.Helper()
	ctx, want, rng := testCtx(w.t), w.want[path], rand.New(rand.NewPCG(seed, seed))
	for range 25 {
		off := rng.Int64N(int64(len(want))) &^ 4095
		part := want[off:min(off+4096*(1+rng.Int64N(30)), int64(len(want)))]
		var err error
		if rng.IntN(4) == 0 {
			clear(part)
			err = d.Trim(ctx, off, int64(len(part)))
		} else {
			for i := range part {
				part[i] = byte(rng.Uint32() >> (i % 3 * 8))
			}
			err = d.WriteAt(ctx, part, off)
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	if err := d.Flush(ctx); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) checkpoint(d *disk.Disk, path, name string) {
	w.t.Helper()
	if _, err := d.Checkpoint(testCtx(w.t), name); err != nil {
		w.t.Fatal(err)
	}
	w.want[path+"@"+name] = bytes.Clone(w.want[path])
}

// newWorld makes a disk that was written in three sessions, of which one crashed and the last is
// not closed either, with a checkpoint, and a fork of that which was written too.
func newWorld(t *testing.T) *world {
	t.Helper()
	ctx := testCtx(t)
	w := &world{t: t, store: memblob.New(), want: map[string][]byte{parent: make([]byte, size)}}
	if _, err := disk.Create(ctx, w.store, parent, disk.CreateOptions{Size: size}); err != nil {
		t.Fatal(err)
	}
	d := w.attach(w.store, parent, 1)
	w.churn(d, parent, 1)
	w.checkpoint(d, parent, "one")
	w.churn(d, parent, 2)
	if err := d.Settle(ctx); err != nil {
		t.Fatal(err)
	}
	w.churn(d, parent, 5) // what the map of before had is garbage then
	if err := d.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := disk.Fork(ctx, w.store, parent, "one", child,
		disk.ForkOptions{Size: 2 * size}); err != nil {
		t.Fatal(err)
	}
	w.want[child] = append(bytes.Clone(w.want[parent+"@one"]), make([]byte, size)...)
	c := w.attach(w.store, child, 1)
	w.churn(c, child, 3)
	if err := c.Settle(ctx); err != nil {
		t.Fatal(err)
	}
	w.churn(c, child, 4) // likewise
	if err := c.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for generation := uint64(2); generation < 4; generation++ {
		d = w.attach(noMaps{w.store}, parent, generation)
		w.churn(d, parent, 10+generation)
		d.Abandon()
	}
	return w
}

func (w *world) check(path string, o fsck.Options) *fsck.Report {
	w.t.Helper()
	r, err := fsck.Check(testCtx(w.t), w.store, path, o)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// readable reads everything through the engine and reports the first thing that is wrong.
func (w *world) readable() error {
	ctx := testCtx(w.t)
	for name, want := range w.want {
		path, point, _ := strings.Cut(name, "@")
		var dev disk.Device
		if path == parent && point == "" {
			d, err := disk.Attach(ctx, w.copyStore(), path,
				disk.AttachOptions{Generation: 9, Holder: "reader"})
			if err != nil {
				return err
			}
			defer d.Abandon()
			dev = d
		} else {
			d, err := disk.OpenReadOnly(ctx, w.store, path, point,
				disk.ReadOnlyOptions{Tuning: disk.Tuning{StallTimeout: 50 * time.Millisecond}})
			if err != nil {
				return err
			}
			defer d.Close()
			dev = d
		}
		got := make([]byte, len(want))
		if err := dev.ReadAt(ctx, got, 0); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("%s: content differs", name)
		}
	}
	return nil
}

func (w *world) objects(store blob.Store) map[string][]byte {
	w.t.Helper()
	ctx, out := testCtx(w.t), map[string][]byte{}
	var keys []string
	if err := store.List(ctx, "", "", func(e blob.Entry) bool {
		keys = append(keys, e.Key)
		return true
	}); err != nil {
		w.t.Fatal(err)
	}
	for _, k := range keys {
		obj, err := store.Get(ctx, k, blob.All())
		if err != nil {
			w.t.Fatal(err)
		}
		out[k] = obj.Data
	}
	return out
}

// copyStore returns a copy, so that an attach for a look leaves the original as it was.
func (w *world) copyStore() blob.Store {
	w.t.Helper()
	to := memblob.New()
	for k, b := range w.objects(w.store) {
		w.put(to, k, b)
	}
	return to
}

func (w *world) put(s blob.Store, key string, b []byte) {
	w.t.Helper()
	if _, err := s.Put(testCtx(w.t), key, b); err != nil {
		w.t.Fatal(err)
	}
}

func TestHealthyDisks(t *testing.T) {
	w := newWorld(t)
	if err := w.readable(); err != nil {
		t.Fatal(err)
	}
	before := w.objects(w.store)
	for _, data := range []bool{false, true} {
		for _, path := range []string{parent, child} {
			r := w.check(path, fsck.Options{Data: data})
			if r.DamageCount != 0 {
				t.Errorf("%s: %+v", path, r.Damage)
			}
			if r.Segments == 0 || r.Pages == 0 || r.Roots == 0 || (r.Frames > 0) != data {
				t.Errorf("%s: looked at too little or too much: %+v", path, r)
			}
		}
	}
	r := w.check(parent, fsck.Options{})
	if r.Checkpoints != 1 || r.Forks != 1 || r.Fences != 1 || r.LogObjects == 0 ||
		r.State != "open" {
		t.Errorf("%+v", r)
	}
	after := w.objects(w.store)
	if len(after) != len(before) {
		t.Errorf("a check has changed the store: %d objects, then %d", len(before), len(after))
	}
	for k, b := range before {
		if !bytes.Equal(after[k], b) {
			t.Errorf("a check has changed %s", k)
		}
	}
}

// TestGarbageIsGarbage removes all that is called unreachable: nothing is missed, by the disk, its
// checkpoint or its fork, and nothing unreachable is left.
func TestGarbageIsGarbage(t *testing.T) {
	w := newWorld(t)
	removed := 0
	for _, path := range []string{parent, child} {
		r := w.check(path, fsck.Options{Garbage: func(key string, _ int64) {
			removed++
			if err := w.store.Delete(testCtx(t), key); err != nil {
				t.Error(err)
			}
		}})
		if r.Garbage().Objects == 0 {
			t.Errorf("%s: nothing is unreachable after a churn: %+v", path, r.Unreachable)
		}
	}
	t.Logf("%d objects were unreachable", removed)
	if err := w.readable(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{parent, child} {
		if r := w.check(path, fsck.Options{Data: true}); r.DamageCount != 0 ||
			r.Garbage().Objects != 0 {
			t.Errorf("%s: %+v", path, r)
		}
	}
}

// TestEveryDamageIsFound removes, cuts or flips a bit of each object of the store in turn. When the
// check finds no damage then, the engine must be able to read everything as before.
func TestEveryDamageIsFound(t *testing.T) {
	w := newWorld(t)
	rng := rand.New(rand.NewPCG(5, 5))
	found := map[string]int{}
	objects := w.objects(w.store)
	for i, key := range slices.Sorted(maps.Keys(objects)) {
		body := objects[key]
		// one each: all three take a while
		for _, how := range []string{"removed", "cut", "flipped"}[i%3 : i%3+1] {
			bad := bytes.Clone(body)
			switch how {
			case "removed":
				if err := w.store.Delete(testCtx(t), key); err != nil {
					t.Fatal(err)
				}
			case "cut":
				w.put(w.store, key, bad[:rng.IntN(len(bad))])
			default:
				bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
				w.put(w.store, key, bad)
			}
			damage, err := w.damage()
			if damage > 0 {
				found[how]++
			} else if err == nil && !strings.HasSuffix(key,
				"/head") { // a flipped number in a head can be a head
				if rerr := w.readable(); rerr != nil &&
					!(how == "removed" && strings.Contains(key, "/ckpt/")) && !w.tailOfLog(key) {
					t.Errorf("%s %s: the check finds nothing, the engine says: %v", key, how, rerr)
				}
			}
			w.put(w.store, key, body)
		}
	}
	t.Logf("found %v", found)
	for how, n := range found {
		if n < 5 {
			t.Errorf("only %d objects that were %s were noticed", n, how)
		}
	}
	if damage, err := w.damage(); damage != 0 || err != nil {
		t.Errorf("the restored store: %d, %v", damage, err)
	}
}

// tailOfLog reports whether an object is one of the open session's log: if it is missing, no check
// can tell that it ever was.
func (w *world) tailOfLog(key string) bool {
	return strings.HasPrefix(key, parent+"/log/")
}

func (w *world) damage() (int, error) {
	n := 0
	for _, path := range []string{parent, child} {
		r, err := fsck.Check(testCtx(w.t), w.store, path, fsck.Options{Data: true})
		if err != nil {
			return n, err
		}
		n += r.DamageCount
	}
	return n, nil
}

func TestNoDiskIsNoDamage(t *testing.T) {
	if _, err := fsck.Check(testCtx(t), memblob.New(), "disks/none", fsck.Options{}); !errs.Is(err,
		errs.NotFound) {
		t.Errorf("%v", err)
	}
	if _, err := fsck.Check(testCtx(t), memblob.New(), "../x", fsck.Options{}); !errs.Is(err,
		errs.Invalid) {
		t.Errorf("%v", err)
	}
}
