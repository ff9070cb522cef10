package disk_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/fsck"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestLookingAtALogDoesNotBringItBack has a disk destroyed between the two requests that look at
// its log store, and the destroy cut short.
func TestLookingAtALogDoesNotBringItBack(t *testing.T) {
	ctx := testCtx(t)
	p := newTwoStores(t, 1<<20)
	d := p.attach(t, 1)
	want := make([]byte, 1<<20)
	for i := range 4 {
		fill(want[i*4096:][:4096], uint64(i)+1)
		if err := d.WriteAt(ctx, want[i*4096:][:4096], int64(i)*4096); err != nil {
			t.Fatal(err)
		}
		if err := d.Flush(ctx); err != nil {
			t.Fatal(err)
		}
	}
	d.Abandon() // only the log has that
	head, err := disk.ReadHead(ctx, p.main.client(), path)
	if err != nil {
		t.Fatal(err)
	}
	looks := p.log.client()
	looks.judge = func(n int, op, key string) verdict {
		if n == 2 { // it has seen that the identity is there
			destroys := p.log.client()
			deletes := 0
			destroys.judge = func(_ int, op, _ string) verdict {
				if op == "delete" {
					if deletes++; deletes > 3 { // the identity and a part of the log
						return dieBefore
					}
				}
				return pass
			}
			cut, cancel := shortCtx(t)
			defer cancel()
			if err := disk.Destroy(cut, p.main.client(), path,
				disk.DestroyOptions{OpenLog: opener(destroys)}); err == nil {
				t.Error("the destroy was not cut")
			}
		}
		return pass
	}
	_, _ = disk.InspectLog(ctx, head, opener(looks))
	err = p.tryAttach(t, 2, p.log.client())
	if !errs.Is(err, errs.Corrupt) || !strings.Contains(err.Error(), logURL) {
		t.Errorf("attached to a log of which a part is gone: %v", err)
	}
	if err := disk.Destroy(ctx, p.main.client(), path,
		disk.DestroyOptions{OpenLog: opener(p.log.client())}); err != nil {
		t.Fatal(err)
	}
	if left := append(p.main.keys(""), p.log.keys("")...); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func shortCtx(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), 300*time.Millisecond)
}

// stops refuses what the disk's own store is asked to write, once told to.
func stops(c *simClient) (stop func()) {
	return func() {
		c.setJudge(func(_ int, op, _ string) verdict {
			if op == "absent" || op == "match" {
				return refuse
			}
			return pass
		})
	}
}

// writeEach writes and flushes one block after the other until something fails, and returns how
// many flushes were acknowledged.
func writeEach(ctx context.Context, d *disk.Disk, want []byte, n int) (int, error) {
	for i := range n {
		block := i % (len(want) / 4096)
		part := append([]byte(nil), want[block*4096:][:4096]...)
		fill(part, uint64(i)+1000)
		if err := d.WriteAt(ctx, part, int64(block)*4096); err != nil {
			return i, err
		}
		if err := d.Flush(ctx); err != nil {
			return i, err
		}
		copy(want[block*4096:], part)
	}
	return n, nil
}

// TestLogStoreGoesOnWhileTheDisksStoreIsDown goes on until the log is as long as a replay may be,
// and dies. All that was acknowledged is there, and what was not is there whole or not at all.
func TestLogStoreGoesOnWhileTheDisksStoreIsDown(t *testing.T) {
	ctx := testCtx(t)
	p := newTwoStores(t, 1<<20)
	main := p.main.client()
	d := attach(t, main, path, 1, with(p.log.client()), small,
		func(o *disk.AttachOptions) {
			o.StallTimeout, o.Revalidate,
				o.DirtyBytes = time.Second, -1, 4<<20
		})
	want := make([]byte, 1<<20)
	if n, err := writeEach(ctx, d, want, 3); n != 3 {
		t.Fatal(err)
	}
	if err := d.Settle(ctx); err != nil {
		t.Fatal(err)
	}
	stops(main)()
	acked, err := writeEach(ctx, d, want, 1000)
	// CheckpointObjects is 4; some objects are of two flushes
	if bound := 64 * 4; acked < bound/2 || acked > bound || !errs.Is(err, errs.Unavailable) {
		t.Fatalf("%d flushes without the disk's own store, then %v", acked, err)
	}
	checkAll(t, ctx, d, withNext(want, acked))
	d.Abandon()
	next := p.attach(t, 2)
	got := make([]byte, len(want))
	if err := next.ReadAt(ctx, got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) && !bytes.Equal(got, withNext(want, acked)) {
		t.Error("an acknowledged flush is lost")
	}
	if n := next.Stats().Replayed; n < uint64(acked)/2 {
		t.Errorf("%d log objects were replayed after %d flushes", n, acked)
	}
	mustClose(t, next)
}

// withNext is what want would be with the write of writeEach that was not acknowledged.
func withNext(want []byte, acked int) []byte {
	out := append([]byte(nil), want...)
	block := acked % (len(want) / 4096)
	fill(out[block*4096:][:4096], uint64(acked)+1000)
	return out
}

// TestLateSegmentsOfAZombie has the segments and the map that a writer was about to write arrive
// when the disk has a new writer, has been closed, and has been opened once more.
func TestLateSegmentsOfAZombie(t *testing.T) {
	ctx := testCtx(t)
	p := newTwoStores(t, 1<<20)
	main := p.main.client()
	zombie := attach(t, main, path, 1, with(p.log.client()), small,
		func(o *disk.AttachOptions) { o.StallTimeout, o.Revalidate = time.Second, -1 })
	want := make([]byte, 1<<20)
	if n, err := writeEach(ctx, zombie, want, 5); n != 5 {
		t.Fatal(err)
	}
	main.setJudge(func(_ int, op, key string) verdict {
		if op == "absent" || op == "match" {
			return late
		}
		return pass
	})
	if _, err := writeEach(ctx, zombie, want, 20); err != nil {
		t.Fatal(err)
	}
	if err := zombie.Settle(ctx); !errs.Is(err, errs.Unavailable) {
		t.Fatalf("settled without a store: %v", err)
	}
	next := p.attach(t, 2)
	checkAll(t, ctx, next, want)
	fill(want[:4096], 7)
	if err := next.WriteAt(ctx, want[:4096], 0); err != nil {
		t.Fatal(err)
	}
	mustClose(t, next)
	main.setJudge(nil)
	main.release()
	if err := zombie.Settle(ctx); !errs.Is(err, errs.Fenced) {
		t.Errorf("a zombie wrote its map: %v", err)
	}
	zombie.Abandon()
	last := p.attach(t, 3)
	checkAll(t, ctx, last, want)
	mustClose(t, last)
	r, err := fsck.Check(ctx, p.main.client(), path,
		fsck.Options{Data: true, OpenLog: opener(p.log.client())})
	if err != nil || r.DamageCount > 0 {
		t.Errorf("%v, %+v", err, r)
	}
}

// TestTwoDisksShareALogStore has two disks of one pool, and a third of another at the same path, in
// one log store. One is destroyed.
func TestTwoDisksShareALogStore(t *testing.T) {
	ctx := testCtx(t)
	p := newTwoStores(t, 1<<20)
	p.create(t, "disks/other", 1<<20)
	foreign := &twoStores{newSim(), p.log}
	foreign.create(t, path, 1<<20)
	content := map[string][]byte{}
	places := map[string]blob.Store{path: p.main.client(), "disks/other": p.main.client(),
		"foreign": foreign.main.client()}
	at := func(name string) string {
		if name == "foreign" {
			return path
		}
		return name
	}
	for name, store := range places {
		d := attach(t, store, at(name), 1, with(p.log.client()))
		content[name] = make([]byte, 1<<20)
		fill(content[name][:65536], uint64(len(name)))
		if err := d.WriteAt(ctx, content[name][:65536], 0); err != nil {
			t.Fatal(err)
		}
		if err := d.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		d.Abandon() // only the log has it
	}
	if err := disk.Destroy(ctx, p.main.client(), path,
		disk.DestroyOptions{OpenLog: opener(p.log.client())}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"disks/other", "foreign"} {
		d := attach(t, places[name], at(name), 2, with(p.log.client()))
		checkAll(t, ctx, d, content[name])
		mustClose(t, d)
	}
}

// TestOlderCopyOfTheLogStore brings older copies of a log store back. What its disk's map has is
// there, and of the rest a prefix: a store that forgets what it has acknowledged can't be told from
// one that was never asked.
func TestOlderCopyOfTheLogStore(t *testing.T) {
	ctx := testCtx(t)
	p := newTwoStores(t, 1<<20)
	d := p.attach(t, 1, func(o *disk.AttachOptions) { o.CheckpointObjects = 1000 })
	want := make([]byte, 1<<20)
	var states [][]byte
	var copies []*sim
	step := func(i int) {
		fill(want[i*4096:][:4096], uint64(i)+1)
		if err := d.WriteAt(ctx, want[i*4096:][:4096], int64(i)*4096); err != nil {
			t.Fatal(err)
		}
		if err := d.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		states, copies = append(states, append([]byte(nil), want...)),
			append(copies, cloneSim(p.log))
	}
	for i := range 8 {
		step(i)
	}
	if err := d.Settle(ctx); err != nil {
		t.Fatal(err)
	}
	for i := 8; i < 16; i++ {
		step(i)
	}
	d.Abandon()
	for i, log := range copies {
		back := &twoStores{cloneSim(p.main), log}
		next := back.attach(t, 2)
		checkAll(t, ctx, next, states[max(i, 7)])
		mustClose(t, next)
	}
}

// TestForksAndReadersNeedNoLog forks and reads at every state of a log that is on its way to the
// disk's own store.
func TestForksAndReadersNeedNoLog(t *testing.T) {
	ctx := testCtx(t)
	p := newTwoStores(t, 1<<20)
	main := p.main.client()
	d := attach(t, main, path, 1, with(p.log.client()), small,
		func(o *disk.AttachOptions) { o.StallTimeout, o.CheckpointObjects = time.Second, 1000 })
	want := make([]byte, 1<<20)
	if n, err := writeEach(ctx, d, want, 40); n != 40 {
		t.Fatal(err)
	}
	if _, err := d.Checkpoint(ctx, "v1"); err != nil {
		t.Fatal(err)
	}
	v1 := append([]byte(nil), want...)
	check := func(what string) {
		t.Helper()
		for _, name := range []string{"", "v1"} {
			r, err := disk.OpenReadOnly(ctx, p.main.client(), path, name, disk.ReadOnlyOptions{})
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			checkAll(t, ctx, r, v1)
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
		child := "disks/" + what
		if _, err := disk.Fork(ctx, p.main.client(), path, "v1", child,
			disk.ForkOptions{}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		f := attach(t, p.main.client(), child, 1)
		checkAll(t, ctx, f, v1)
		mustClose(t, f)
	}
	if n, err := writeEach(ctx, d, want, 20); n != 20 { // in the log store, and in no map
		t.Fatal(err)
	}
	check("staged")
	stops(main)()
	if _, err := d.Checkpoint(ctx, "v2"); !errs.Is(err, errs.Unavailable) {
		t.Errorf("a checkpoint without a store: %v", err)
	}
	check("stalled")
	main.setJudge(func(_ int, op, key string) verdict { // segments are written, and no map
		if strings.Contains(key, "/map/") {
			return refuse
		}
		return pass
	})
	if err := d.Settle(ctx); !errs.Is(err, errs.Unavailable) || len(p.main.keys("/seg/")) == 0 {
		t.Errorf("settled without a map: %v", err)
	}
	check("destaged")
	d.Abandon()
	check("dead")
	next := p.attach(t, 2)
	checkAll(t, ctx, next, want)
	mustClose(t, next)
}

// TestReadsEndBeforeFlushesDo takes the disk's own store away: flushes go on, and reads until the
// disk could not ask for the stall timeout whether it has a newer writer. They come back with the
// store.
func TestReadsEndBeforeFlushesDo(t *testing.T) {
	ctx := testCtx(t)
	p := newTwoStores(t, 1<<20)
	main := p.main.client()
	d := attach(t, main, path, 1, with(p.log.client()),
		func(o *disk.AttachOptions) {
			o.StallTimeout, o.Revalidate = time.Second,
				50*time.Millisecond
		})
	want := make([]byte, 1<<20)
	if n, err := writeEach(ctx, d, want, 3); n != 3 {
		t.Fatal(err)
	}
	main.setJudge(func(int, string, string) verdict { return refuse })
	var err error
	for began := time.Now(); err == nil && time.Since(began) < 20*time.Second; {
		if n, werr := writeEach(ctx, d, want, 1); n != 1 {
			t.Fatalf("a flush after %v without the disk's own store: %v", time.Since(began), werr)
		}
		err = d.ReadAt(ctx, make([]byte, 4096), 0)
		time.Sleep(10 * time.Millisecond)
	}
	if !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "newer writer") {
		t.Fatalf("read: %v", err)
	}
	if n, err := writeEach(ctx, d, want, 1); n != 1 {
		t.Fatal(err)
	}
	main.setJudge(nil)
	for err != nil && ctx.Err() == nil {
		err = d.ReadAt(ctx, make([]byte, 4096), 0)
		time.Sleep(10 * time.Millisecond)
	}
	checkAll(t, ctx, d, want)
	mustClose(t, d)
}
