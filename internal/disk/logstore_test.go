package disk_test

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
	"github.com/sluice-platform/sluice/internal/x/errs"
)

const logURL = "s3://fast/logs"

// twoStores is a pool and a log store.
type twoStores struct{ main, log *sim }

func newTwoStores(t *testing.T, size int64) *twoStores {
	t.Helper()
	p := &twoStores{newSim(), newSim()}
	p.create(t, path, size)
	return p
}

// opener opens any log store as this client.
func opener(c blob.Store) disk.OpenStore {
	return func(context.Context, string) (blob.Store, error) { return c, nil }
}

func (p *twoStores) create(t *testing.T, at string, size int64) {
	t.Helper()
	if _, err := disk.Create(testCtx(t), p.main.client(), at, disk.CreateOptions{Size: size,
		LogURL: logURL, OpenLog: opener(p.log.client())}); err != nil {
		t.Fatal(err)
	}
}

// with attaches by a client of the log store.
func with(c *simClient) func(*disk.AttachOptions) {
	return func(o *disk.AttachOptions) { o.OpenLog = opener(c) }
}

func (p *twoStores) attach(t *testing.T, gen uint64,
	change ...func(*disk.AttachOptions)) *disk.Disk {
	t.Helper()
	return attach(t, p.main.client(), path, gen,
		append([]func(*disk.AttachOptions){with(p.log.client())}, change...)...)
}

func (p *twoStores) tryAttach(t *testing.T, gen uint64, c *simClient) error {
	t.Helper()
	d, err := disk.Attach(testCtx(t), p.main.client(), path,
		disk.AttachOptions{Generation: gen, Holder: fmt.Sprint("vm-", gen),
			OpenLog: opener(c), Tuning: disk.Tuning{StallTimeout: 1}})
	if err == nil {
		d.Abandon()
	}
	return err
}

// onlyIn fails if the pool has log objects, or the log store anything but a log.
func (p *twoStores) onlyIn(t *testing.T) {
	t.Helper()
	if ks := p.main.keys("/log/"); len(ks) > 0 {
		t.Errorf("the pool has %v", ks)
	}
	for _, k := range p.log.keys("") {
		if !strings.Contains(k, "/log/") && !strings.HasSuffix(k, "/disk") &&
			!strings.HasSuffix(k, "/once") {
			t.Errorf("the log store has %s", k)
		}
	}
}

func TestLogStoreContentAgainstAFlatImage(t *testing.T) {
	ctx := testCtx(t)
	want := make([]byte, 5<<20+4096)
	p := newTwoStores(t, int64(len(want)))
	rng := rand.New(rand.NewPCG(7, 8))
	for gen := range uint64(6) {
		d := p.attach(t, gen+1, small)
		churn(t, ctx, rng, d, want, 45)
		checkAll(t, ctx, d, want)
		switch gen % 3 {
		case 0:
			mustClose(t, d)
			continue
		case 1: // the map is ahead of some of it
			if err := d.Settle(ctx); err != nil {
				t.Fatal(err)
			}
			churn(t, ctx, rng, d, want, 10)
		}
		if err := d.Flush(ctx); err != nil { // a crash after a flush
			t.Fatal(err)
		}
		d.Abandon()
	}
	d := p.attach(t, 9, small)
	checkAll(t, ctx, d, want)
	if s := d.Stats(); s.LogStore != logURL {
		t.Errorf("%+v", s)
	}
	if _, err := d.Checkpoint(ctx, "v1"); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
	p.onlyIn(t)

	// The log store is not needed to read, to name, to fork and to restore.
	store := p.main.client()
	for _, name := range []string{"", "v1"} {
		r, err := disk.OpenReadOnly(ctx, store, path, name, disk.ReadOnlyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		checkAll(t, ctx, r, want)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := disk.Fork(ctx, store, path, "v1", "disks/child", disk.ForkOptions{}); err != nil {
		t.Fatal(err)
	}
	child := attach(t, store, "disks/child", 1)
	checkAll(t, ctx, child, want)
	mustClose(t, child)
	if _, _, err := disk.Restore(ctx, store, path, "v1"); err != nil {
		t.Fatal(err)
	}
	again := p.attach(t, 10)
	checkAll(t, ctx, again, want)
	if _, err := again.Compact(ctx, disk.CompactOptions{Target: 1.05}); err != nil {
		t.Fatal(err)
	}
	checkAll(t, ctx, again, want)
	mustClose(t, again)
}

// TestLogStoreTellsWhatIsWrong tries every way in which a log store is not the one that the disk
// was bound to. None changes anything, and the disk goes on when the right one is back.
func TestLogStoreTellsWhatIsWrong(t *testing.T) {
	ctx := testCtx(t)
	p := newTwoStores(t, 1<<20)
	d := p.attach(t, 1)
	block := make([]byte, 4096)
	fill(block, 1)
	if err := d.WriteAt(ctx, block, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	d.Abandon() // what was flushed is in the log only

	head, err := disk.ReadHead(ctx, p.main.client(), path)
	if err != nil {
		t.Fatal(err)
	}
	identity := head.UID + "/disk"
	other := &twoStores{newSim(), newSim()}
	other.create(t, path, 1<<20)
	otherHead, err := disk.ReadHead(ctx, other.main.client(), path)
	if err != nil {
		t.Fatal(err)
	}
	emptied := cloneSim(p.log)
	delete(emptied.objs, identity)
	foreign := cloneSim(p.log)
	foreign.objs[identity] = simObject{
		body: []byte(strings.ReplaceAll(string(p.log.objs[identity].body), head.LogStore.Binding,
			otherHead.LogStore.Binding)), etag: "x"}
	broken := cloneSim(p.log)
	broken.objs[identity] = simObject{body: []byte("<html>"), etag: "x"}
	away := p.log.client()
	away.judge = func(int, string, string) verdict { return refuse }
	careless := cloneSim(p.log)
	careless.overwrites = true
	before := slices.Clone(p.main.history)
	for _, c := range []struct {
		what  string
		store *simClient
		kind  errs.Kind
	}{
		{"an empty store", newSim().client(), errs.Corrupt},
		{"another disk's store", other.log.client(), errs.Corrupt},
		{"an emptied store", emptied.client(), errs.Corrupt},
		{"another binding", foreign.client(), errs.Conflict},
		{"a broken identity", broken.client(), errs.Corrupt},
		{"a store that is away", away, errs.Unavailable},
		{"a store that overwrites", careless.client(), errs.Unsupported},
	} {
		err := p.tryAttach(t, 2, c.store)
		if !errs.Is(err, c.kind) || !strings.Contains(err.Error(), logURL) ||
			errs.RemedyOf(err) == "" && c.kind != errs.Corrupt {
			t.Errorf("%s: %v (%s)", c.what, err, errs.RemedyOf(err))
		}
		if !slices.Equal(p.main.history, before) {
			t.Errorf("%s: the pool was changed", c.what)
		}
	}
	if d, err := disk.Attach(ctx, p.main.client(), path,
		disk.AttachOptions{Generation: 2}); !errs.Is(err, errs.Unsupported) ||
		!strings.Contains(errs.RemedyOf(err), "fork") {
		t.Errorf("attached without a log store: %v, %v", d, err)
	}
	if _, err := disk.Create(ctx, p.main.client(), "disks/b", disk.CreateOptions{Size: 1 << 20,
		LogURL: logURL, OpenLog: opener(careless.client())}); !errs.Is(err, errs.Unsupported) {
		t.Errorf("made a disk with a store that overwrites: %v", err)
	}
	got := p.attach(t, 2)
	if n := got.Stats().Replayed; n != 1 {
		t.Errorf("%d log objects replayed", n)
	}
	checkAll(t, ctx, got, append(block, make([]byte, 1<<20-4096)...))
}

// TestLogStoreFencesAZombie lets a writer wake whose disk was taken over.
func TestLogStoreFencesAZombie(t *testing.T) {
	ctx := testCtx(t)
	p := newTwoStores(t, 1<<20)
	quiet := func(o *disk.AttachOptions) { o.Revalidate = -1 }
	zombie := p.attach(t, 1, quiet)
	block := make([]byte, 4096)
	write := func(d *disk.Disk) error {
		if err := d.WriteAt(ctx, block, 0); err != nil {
			return err
		}
		return d.Flush(ctx)
	}
	if err := write(zombie); err != nil {
		t.Fatal(err)
	}
	next := p.attach(t, 2, quiet)
	if err := write(zombie); !errs.Is(err, errs.Fenced) {
		t.Fatalf("a zombie's flush: %v", err)
	}
	if err := write(next); err != nil {
		t.Fatal(err)
	}
	mustClose(t, next)
	var fences int
	for _, k := range p.log.keys("/log/") {
		if h, err := format.DecodeLogHeader(p.log.objs[k].body); err == nil && h.IsFence() {
			fences++
		}
	}
	if fences != 1 {
		t.Errorf("%d fences in the log store", fences)
	}
	p.onlyIn(t)
}

// TestCopiesOfADiskDontMixTheirLogs copies the pool and not the log store, as a backup does, and
// goes on with both.
func TestCopiesOfADiskDontMixTheirLogs(t *testing.T) {
	ctx := testCtx(t)
	p := newTwoStores(t, 1<<20)
	mustClose(t, p.attach(t, 1))
	copied := &twoStores{cloneSim(p.main), p.log}
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for gen := range uint64(3) {
		for i, x := range []*twoStores{p, copied} {
			d := x.attach(t, gen+2)
			want := [][]byte{a, b}[i]
			checkAll(t, ctx, d, want)
			fill(want[:8192], gen*2+uint64(i))
			if err := d.WriteAt(ctx, want[:8192], 0); err != nil {
				t.Fatal(err)
			}
			if err := d.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			d.Abandon()
		}
	}
}

// TestDestroyEmptiesTheLogStore repeats a destroy that was cut off at any request.
func TestDestroyEmptiesTheLogStore(t *testing.T) {
	for cut := range 12 {
		p := newTwoStores(t, 1<<20)
		d := p.attach(t, 1)
		if err := d.WriteAt(testCtx(t), make([]byte, 4096), 0); err != nil {
			t.Fatal(err)
		}
		mustClose(t, d)
		main, log := p.main.client(), p.log.client()
		ctx, cancel := context.WithCancel(testCtx(t))
		n := 0
		for _, c := range []*simClient{main, log} {
			c.judge = func(int, string, string) verdict {
				if n++; n == cut+1 {
					cancel()
					return verdict(int(dieBefore) + cut%2)
				}
				return pass
			}
		}
		err := disk.Destroy(ctx, main, path, disk.DestroyOptions{OpenLog: opener(log)})
		cancel()
		if err != nil {
			err = disk.Destroy(testCtx(t), p.main.client(), path,
				disk.DestroyOptions{OpenLog: opener(p.log.client())})
		}
		if err != nil || len(p.main.keys(""))+len(p.log.keys("")) > 0 {
			t.Fatalf("cut %d: %v; left %v and %v", cut, err, p.main.keys(""), p.log.keys(""))
		}
	}
}
