package disk_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestGrow grows a disk again and again: what was there stays, what is new is zeros and can be
// written.
func TestGrow(t *testing.T) {
	ctx, s := testCtx(t), newSim()
	create(t, s.client(), path, 4<<20)
	want := make([]byte, 4<<20)
	rng := rand.New(rand.NewPCG(3, 3))
	for gen, size := range []int64{4 << 20, 5<<20 + 4096, 5<<30 + 4096} {
		if _, err := disk.Grow(ctx, s.client(), path, size); err != nil {
			t.Fatal(err)
		}
		d := attach(t, s.client(), path, uint64(gen+1), small)
		if d.Size() != size {
			t.Fatalf("size %d, want %d", d.Size(), size)
		}
		want = append(want, make([]byte, min(size, 8<<20)-int64(len(want)))...)
		checkAll(t, ctx, d, want)
		churn(t, ctx, rng, d, want, 40)
		if _, err := disk.Grow(ctx, s.client(), path, 6<<30); !errs.Is(err, errs.Conflict) {
			t.Errorf("an attached disk grew: %v", err)
		}
		mustClose(t, d)
	}
	d := attach(t, s.client(), path, 9)
	checkAll(t, ctx, d, want)
	last := make([]byte, 4096)
	if err := d.WriteAt(ctx, bytes.Repeat([]byte{7}, 4096), 5<<30); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
	d = attach(t, s.client(), path, 10)
	if err := d.ReadAt(ctx, last, 5<<30); err != nil || last[0] != 7 {
		t.Errorf("the last block: %v, %d", err, last[0])
	}
	mustClose(t, d)
	for _, bad := range []int64{4 << 20, 0, 5<<30 + 1, disk.MaxSize + 4096} {
		if _, err := disk.Grow(ctx, s.client(), path, bad); !errs.Is(err, errs.Invalid) {
			t.Errorf("to %d bytes: %v", bad, err)
		}
	}
}

// TestRestore goes back to a checkpoint and, by what it has kept, forth again, also after growing.
func TestRestore(t *testing.T) {
	ctx, s := testCtx(t), newSim()
	create(t, s.client(), path, 4<<20)
	rng := rand.New(rand.NewPCG(4, 4))
	want := make([]byte, 4<<20)
	d := attach(t, s.client(), path, 1, small)
	churn(t, ctx, rng, d, want, 60)
	if _, err := d.Checkpoint(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	one := bytes.Clone(want)
	churn(t, ctx, rng, d, want, 60)
	if _, _, err := disk.Restore(ctx, s.client(), path, "one"); !errs.Is(err, errs.Conflict) {
		t.Errorf("an attached disk was restored: %v", err)
	}
	mustClose(t, d)
	two := bytes.Clone(want)
	if _, err := disk.Grow(ctx, s.client(), path, 5<<20); err != nil {
		t.Fatal(err)
	}
	one, two = append(one, make([]byte, 1<<20)...), append(two, make([]byte, 1<<20)...)
	back := "one"
	for gen := uint64(2); gen < 8; gen++ {
		_, saved, err := disk.Restore(ctx, s.client(), path, back)
		if err != nil {
			t.Fatal(err)
		}
		back = saved
		one, two = two, one
		d := attach(t, s.client(), path, gen, small)
		checkAll(t, ctx, d, two)
		churn(t, ctx, rng, d, two, 30)
		if gen%2 == 0 { // a crash in between changes nothing
			if err := d.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			d.Abandon()
			d = attach(t, s.client(), path, gen, small)
		}
		checkAll(t, ctx, d, two)
		mustClose(t, d)
	}
	if _, _, err := disk.Restore(ctx, s.client(), path, "none"); !errs.Is(err, errs.NotFound) {
		t.Errorf("%v", err)
	}
}

// changing runs f once, before the first swap of the head that comes through it.
type changing struct {
	blob.Store
	f func()
}

func (c *changing) PutIfMatch(ctx context.Context, key string, body []byte,
	match blob.ETag) (blob.ETag, error) {
	if f := c.f; f != nil {
		c.f = nil
		f()
	}
	return c.Store.PutIfMatch(ctx, key, body, match)
}

// TestGrowAndRestoreRaceAnAttach lets one slip in between the other's look at the head and its
// swap.
func TestGrowAndRestoreRaceAnAttach(t *testing.T) {
	ctx, s := testCtx(t), newSim()
	create(t, s.client(), path, 4<<20)
	if _, err := disk.CheckpointClosed(ctx, s.client(), path, "empty"); err != nil {
		t.Fatal(err)
	}
	var d *disk.Disk
	store := &changing{Store: s.client(), f: func() { d = attach(t, s.client(), path, 1) }}
	if _, err := disk.Grow(ctx, store, path, 8<<20); !errs.Is(err, errs.Conflict) {
		t.Fatalf("a disk grew under its writer: %v", err)
	}
	mustClose(t, d)
	store.f = func() { d = attach(t, s.client(), path, 2) }
	if _, _, err := disk.Restore(ctx, store, path, "empty"); !errs.Is(err, errs.Conflict) {
		t.Fatalf("a disk was restored under its writer: %v", err)
	}
	mustClose(t, d)
	// The other way round: the attach finds a larger disk, and serves all of it.
	store.f = func() {
		if _, err := disk.Grow(ctx, s.client(), path, 8<<20); err != nil {
			t.Error(err)
		}
	}
	d = attach(t, store, path, 3)
	if err := d.WriteAt(ctx, make([]byte, 4096), 8<<20-4096); d.Size() != 8<<20 || err != nil {
		t.Errorf("an attach that raced a resize serves %d bytes: %v", d.Size(), err)
	}
	mustClose(t, d)
}
