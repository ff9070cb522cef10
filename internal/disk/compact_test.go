package disk_test

import (
	"bytes"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/cache"
	"github.com/sluice-platform/sluice/internal/disk/fsck"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// sound checks every byte that is stored of a disk.
func sound(t *testing.T, s *sim, p string) *fsck.Report {
	t.Helper()
	r, err := fsck.Check(testCtx(t), s.client(), p, fsck.Options{Data: true})
	if err != nil {
		t.Fatal(err)
	}
	if r.DamageCount != 0 {
		t.Fatalf("%s: %+v", p, r.Damage)
	}
	return r
}

func TestCompactionKeepsContentAndSavesSpace(t *testing.T) {
	for _, cached := range []bool{false, true} {
		ctx := testCtx(t)
		s := newSim()
		want := make([]byte, 4<<20)
		create(t, s.client(), path, int64(len(want)))
		rng := rand.New(rand.NewPCG(21, 1))
		tune := []func(*disk.AttachOptions){small}
		if cached {
			dev, err := cache.Open(filepath.Join(t.TempDir(), "cache"), 16<<20)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = dev.Close() })
			tune = append(tune, func(o *disk.AttachOptions) { o.Cache = dev })
		}
		for gen := uint64(1); gen <= 3; gen++ {
			d := attach(t, s.client(), path, gen, tune...)
			churn(t, ctx, rng, d, want, 100)
			done, err := d.Compact(ctx, disk.CompactOptions{})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%+v", done)
			if done.Packed == 0 || float64(done.SpaceBytes) > 1.2*float64(done.LiveBytes)+1 {
				t.Errorf("compacted to %+v", done)
			}
			checkAll(t, ctx, d, want)
			churn(t, ctx, rng, d, want, 20)
			if gen == 2 {
				d.Abandon() // after a crash the map and the log tell the same
			} else {
				mustClose(t, d)
			}
			if gen == 2 {
				d = attach(t, s.client(), path, 3, tune...)
				_ = d.Flush(ctx)
				got := make([]byte, len(want))
				if err := d.ReadAt(ctx, got, 0); err != nil {
					t.Fatal(err)
				}
				copy(want, got) // what was not flushed is lost
				mustClose(t, d)
			}
			sound(t, s, path)
		}
		again := attach(t, s.client(), path, 9, tune...)
		checkAll(t, ctx, again, want)
		mustClose(t, again)
	}
}

// TestCompactionBesideAWriter compacts all the time while blocks are overwritten and trimmed.
func TestCompactionBesideAWriter(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	want := make([]byte, 8<<20)
	create(t, s.client(), path, int64(len(want)))
	d := attach(t, s.client(), path, 1, small,
		func(o *disk.AttachOptions) { o.CompactBytes, o.CompactShare = 64<<10, 100 })
	stop := make(chan struct{})
	var g errgroup.Group
	rounds := 0
	g.Go(func() error {
		for ; ; rounds++ {
			select {
			case <-stop:
				return nil
			default:
			}
			if _, err := d.Compact(ctx, disk.CompactOptions{Target: 1.01}); err != nil {
				return err
			}
		}
	})
	churn(t, ctx, rand.New(rand.NewPCG(5, 2)), d, want, 1200)
	close(stop)
	if err := g.Wait(); err != nil || rounds == 0 {
		t.Fatal(rounds, err)
	}
	checkAll(t, ctx, d, want)
	mustClose(t, d)
	sound(t, s, path)
	d = attach(t, s.client(), path, 2)
	checkAll(t, ctx, d, want)
	t.Logf("%d compactions", rounds)
}

// TestBackgroundCompactionStaysWithinItsShare overwrites a small part of a disk for long.
func TestBackgroundCompactionStaysWithinItsShare(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	const size = 4 << 20
	create(t, s.client(), path, size)
	d := attach(t, s.client(), path, 1, small,
		func(o *disk.AttachOptions) { o.CompactBytes = 1 << 20 })
	rng := rand.New(rand.NewPCG(8, 8))
	want := make([]byte, size)
	for round := 0; d.Stats().Packed == 0; round++ {
		for range 200 {
			off := rng.Int64N(size) &^ 4095
			fill(want[off:off+4096], rng.Uint64())
			if err := d.WriteAt(ctx, want[off:off+4096], off); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		if ctx.Err() != nil {
			t.Fatalf("no segment was packed: %+v", d.Stats())
		}
		time.Sleep(time.Millisecond)
	}
	checkAll(t, ctx, d, want)
	mustClose(t, d)
	st := d.Stats()
	// One segment may be begun within the share and end beyond it.
	if float64(st.PackedBytes) > 0.25*float64(st.PutBytes-st.PackedBytes)+float64(size) {
		t.Errorf("too much was written: %+v", st)
	}
	sound(t, s, path)
}

// TestATrimGivesSpaceBack counts what is reachable in the store before and after.
func TestATrimGivesSpaceBack(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	const size = 16 << 20
	create(t, s.client(), path, size)
	d := attach(t, s.client(), path, 1, small)
	data := make([]byte, size)
	if _, err := rand.NewChaCha8([32]byte{}).Read(data); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteAt(ctx, data, 0); err != nil {
		t.Fatal(err)
	}
	for off := int64(0); off < size; off += 32 << 10 { // seven eighths, of every segment
		if err := d.Trim(ctx, off, 28<<10); err != nil {
			t.Fatal(err)
		}
		clear(data[off : off+28<<10])
	}
	if _, err := d.Compact(ctx, disk.CompactOptions{}); err != nil {
		t.Fatal(err)
	}
	checkAll(t, ctx, d, data)
	mustClose(t, d)
	r := sound(t, s, path)
	if left := r.Own.Bytes - r.Garbage().Bytes; left > size/8*13/10 {
		t.Errorf("%d bytes are still reachable of %d", left, r.Own.Bytes)
	}
}

// TestAZombieCompactsNothing stops a writer between a packed segment and the map.
func TestAZombieCompactsNothing(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	want := make([]byte, 2<<20)
	create(t, s.client(), path, int64(len(want)))
	c := s.client()
	zombie := attach(t, c, path, 1, small)
	churn(t, ctx, rand.New(rand.NewPCG(3, 3)), zombie, want, 60)
	if err := zombie.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	next := attach(t, s.client(), path, 2, small)
	if _, err := zombie.Compact(ctx, disk.CompactOptions{}); !errs.Is(err, errs.Fenced) {
		t.Errorf("%v", err)
	}
	checkAll(t, ctx, next, want)
	mustClose(t, next)
	sound(t, s, path)
}

// TestAReaderSurvivesARemovedSegment holds a read back at its first object until all that it knows
// of is rewritten elsewhere and removed.
func TestAReaderSurvivesARemovedSegment(t *testing.T) {
	ctx := testCtx(t)
	s := newSim()
	want := make([]byte, 1<<20)
	create(t, s.client(), path, int64(len(want)))
	c := s.client()
	d := attach(t, c, path, 1, small, func(o *disk.AttachOptions) {
		o.FrameBytes, o.ReadAhead,
			o.Revalidate = 1, -1, -1
	})
	churn(t, ctx, rand.New(rand.NewPCG(4, 4)), d, want, 60)
	if err := d.Settle(ctx); err != nil {
		t.Fatal(err)
	}
	var removed atomic.Bool
	var held string
	gate := make(chan struct{})
	c.setJudge(func(_ int, op, key string) verdict { // called under the client's lock
		if op != "get" || !strings.Contains(key, "/log/") || removed.Load() {
			return pass
		}
		if held == "" {
			held = key
			close(gate)
		}
		if key == held {
			return refuse
		}
		return pass
	})
	var g errgroup.Group
	g.Go(func() error {
		<-gate
		defer removed.Store(true)
		if err := d.WriteAt(ctx, want, 0); err != nil {
			return err
		}
		if err := d.Settle(ctx); err != nil {
			return err
		}
		_, err := fsck.Check(ctx, s.client(), path,
			fsck.Options{Garbage: func(key string, _ int64) {
				_ = s.client().Delete(ctx, key)
			}})
		if len(s.keys(held)) > 0 {
			t.Errorf("%s is still there", held)
		}
		return err
	})
	got := make([]byte, len(want))
	if err := d.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read while its segments moved and went: %v", err)
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	checkAll(t, ctx, d, want)
}
