package gc_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/blob/versitygwtest"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/gc"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func newS3Pool(t *testing.T) *pool {
	s3 := versitygwtest.Start(t)
	s3.Setenv(t)
	store, err := blobs.Open(t.Context(), s3.URL("pool"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	p := newPool(t)
	p.store = store
	return p
}

// diesAt is a client of a store that dies at its request n, which may have been done.
func diesAt(store blob.Store, n int64, die context.CancelFunc) blob.Store {
	var asked atomic.Int64
	return decorate.Intercept(store, func(context.Context, decorate.Op, string) error {
		switch at := asked.Add(1); {
		case at < n:
			return nil
		case at == n && n%2 == 0: // it is done, and nobody hears of it
			time.AfterFunc(0, die)
			return nil
		}
		die()
		return errs.New(errs.Unavailable, "the collector is dead")
	})
}

// TestCollectsOnS3 collects a pool on a real S3 server, two collectors at a time and each of them
// killed somewhere, while a writer goes on, a fork is made and another destroyed. What can be
// reached is there in the end, and nothing else.
func TestCollectsOnS3(t *testing.T) {
	const size = 1 << 20
	p := newS3Pool(t)
	p.create("disks/a", func(o *disk.CreateOptions) { o.Size = size })
	p.session("disks/a", func(d *disk.Disk) { p.write(d, 0, 'a'); p.checkpoint(d, "one") })
	for _, child := range []string{"disks/kept", "disks/gone"} {
		_, err := disk.Fork(p.ctx, p.store, "disks/a", "one", child, disk.ForkOptions{})
		p.must(err)
		p.session(child, func(d *disk.Disk) { p.write(d, 1, 'b') })
	}
	p.must(disk.Destroy(p.ctx, p.store, "disks/gone", disk.DestroyOptions{}))
	p.must(disk.RemoveCheckpoint(p.ctx, p.store, "disks/a", "one"))

	want := make([]byte, size)
	copy(want, bytes.Repeat([]byte{'a'}, disk.BlockSize))
	rng := rand.New(rand.NewPCG(11, 12))
	// objects stay in flight for rounds
	d := p.attach("disks/a", func(o *disk.AttachOptions) {
		o.ObjectBytes, o.CheckpointObjects,
			o.FrameBytes = 64<<10, 30, 1
	})
	freed, died := 0, 0
	for round := range int64(24) {
		for range 6 {
			off := rng.Int64N(size/4096) * 4096
			binary.LittleEndian.PutUint64(want[off:], rng.Uint64())
			p.must(d.WriteAt(p.ctx, want[off:off+4096], off))
			p.must(d.Flush(p.ctx))
		}
		p.now = p.now.Add(time.Hour)
		var g errgroup.Group
		var deaths, frees atomic.Int64
		for i := range int64(2) {
			g.Go(func() error {
				ctx, die := context.WithCancel(p.ctx)
				defer die()
				store := p.store
				if round%4 != 3 { // of the others both live
					store = diesAt(store, 1+(round*7+i*13)%60, die)
				}
				r, err := gc.Collect(ctx, store,
					gc.Options{Grace: time.Hour, Now: func() time.Time { return p.now }})
				if r != nil {
					frees.Add(int64(r.Freed.Total().Objects))
				}
				if err != nil && ctx.Err() != nil {
					deaths.Add(1)
					return nil
				}
				return err
			})
		}
		p.must(g.Wait())
		freed, died = freed+int(frees.Load()), died+int(deaths.Load())
	}
	got := make([]byte, size)
	p.must(d.ReadAt(p.ctx, got, 0))
	if !bytes.Equal(got, want) {
		t.Fatal("a collector took something away")
	}
	p.must(d.Close(p.ctx))
	p.reads("disks/kept", "", "ab")
	if freed == 0 || died < 10 {
		t.Errorf("%d objects freed, %d collectors died", freed, died)
	}
	p.session("disks/a", func(*disk.Disk) {})
	p.session("disks/kept", func(*disk.Disk) {})
	for range 4 {
		p.collect()
	}
	p.noGarbage("disks/a", "disks/kept")
	if n := p.count("disks/gone/"); n > 0 {
		t.Errorf("%d objects of the destroyed fork are left", n)
	}
	t.Logf("%d objects freed by collectors of which %d died", freed, died)
}
