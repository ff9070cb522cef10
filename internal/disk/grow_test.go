package disk_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/format"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestGrowWhileAttached grows a disk over the ends of regions and directories while it is written
// to and its map is written, and looks at all of it after a crash, a close, a checkpoint and a
// fork.
func TestGrowWhileAttached(t *testing.T) {
	ctx, store := t.Context(), memblob.New()
	create(t, store, path, 1<<20)
	d := attach(t, store, path, 1, func(o *disk.AttachOptions) { o.CheckpointObjects = 4 })
	var g errgroup.Group
	stop := make(chan struct{})
	g.Go(func() error {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return nil
			default:
			}
			if err := d.WriteAt(ctx, bytes.Repeat([]byte{byte(i)}, 4096),
				int64(i%256)*4096); err != nil {
				return err
			}
			if err := d.Flush(ctx); err != nil {
				return err
			}
		}
	})
	last := map[int64]byte{}
	for i, size := range []int64{1<<20 + 4096, 4 << 20, 4<<20 + 4096, 4 << 30, 4<<30 + 4096,
		9 << 30, 9 << 30} {
		if err := d.WriteAt(ctx, []byte{1}, size); !errs.Is(err, errs.Invalid) {
			t.Errorf("a write past the end: %v", err)
		}
		if err := d.Grow(ctx, size); err != nil {
			t.Fatal(err)
		}
		if h := d.Head(); h.Size != size || d.Size() != size {
			t.Fatalf("it has %d bytes, its head says %d, want %d", d.Size(), h.Size, size)
		}
		got := make([]byte, 4096)
		if err := d.ReadAt(ctx, got, size-4096); err != nil || i < 6 &&
			!bytes.Equal(got, make([]byte, 4096)) {
			t.Errorf("what is new is not zeros: %v", err)
		}
		last[size-4096] = byte(i + 100)
		if err := d.WriteAt(ctx, bytes.Repeat([]byte{byte(i + 100)}, 4096), size-4096); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if err := d.Settle(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, size := range []int64{1 << 20, 9<<30 + 1, 0, disk.MaxSize + 4096} {
		if err := d.Grow(ctx, size); !errs.Is(err, errs.Invalid) || errs.RemedyOf(err) == "" {
			t.Errorf("to %d bytes: %v", size, err)
		}
	}
	close(stop)
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := d.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	check := func(d disk.Device) {
		t.Helper()
		for off, b := range last {
			got := make([]byte, 4096)
			if err := d.ReadAt(ctx, got, off); err != nil || got[0] != b || got[4095] != b {
				t.Errorf("at %d it has %d, want %d: %v", off, got[0], b, err)
			}
		}
	}
	check(d)
	d.Abandon()
	d = attach(t, store, path, 2)
	check(d)
	if _, err := d.Checkpoint(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	if err := d.Grow(ctx, 10<<30); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := d.Grow(ctx, 11<<30); !errs.Is(err, errs.Invalid) {
		t.Errorf("of a closed disk: %v", err)
	}
	if _, err := disk.Fork(ctx, store, path, "c", "disks/fork", disk.ForkOptions{}); err != nil {
		t.Fatal(err)
	}
	for p, size := range map[string]int64{path: 10 << 30, "disks/fork": 9 << 30} {
		d := attach(t, store, p, 3)
		if d.Size() != size {
			t.Errorf("%s has %d bytes, want %d", p, d.Size(), size)
		}
		check(d)
		if err := d.Close(ctx); err != nil {
			t.Error(err)
		}
	}
}

// TestGrowCut cuts the writer off before, at and after each request while its disk grows and is
// written beyond its old end: its head has the old or the new size, what was acknowledged is there,
// and growing it again goes through. So it does where the answer of each request is lost, or it
// arrives later on.
func TestGrowCut(t *testing.T) {
	for _, v := range []verdict{dieBefore, dieAfter, loseReply, late} {
		for at := range 12 {
			synctest.Test(t, func(t *testing.T) {
				if err := growCut(t.Context(), v, at); err != nil {
					t.Fatalf("verdict %d at request %d: %v", v, at, err)
				}
			})
		}
	}
}

func growCut(ctx context.Context, v verdict, at int) error {
	const from, to = 1 << 20, 64 << 20
	s := newSim()
	if _, err := disk.Create(ctx, s.client(), path, disk.CreateOptions{Size: from}); err != nil {
		return err
	}
	c := s.client()
	opts := disk.AttachOptions{Generation: 1, Holder: "vm-1"}
	opts.Revalidate, opts.StallTimeout, opts.BootWindow, opts.CompactBytes = -1,
		2*time.Second, -1, -1
	d, err := disk.Attach(ctx, c, path, opts)
	if err != nil {
		return err
	}
	defer d.Abandon()
	n := 0
	c.setJudge(func(int, string, string) verdict {
		if n++; n == at+1 {
			return v
		}
		return pass
	})
	gctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond) // the dead don't answer
	defer cancel()
	acked := false
	if err := d.Grow(gctx, to); err == nil {
		if err := d.WriteAt(gctx, bytes.Repeat([]byte{7}, 4096), to-4096); err == nil &&
			d.Flush(gctx) == nil {
			acked = true
			_ = d.Settle(gctx)
		}
	} else if d.Size() != from {
		return fmt.Errorf("a disk that did not grow has %d bytes", d.Size())
	}
	d.Abandon()
	c.release()
	opts.Generation, opts.Holder = 2, "vm-2"
	if d, err = disk.Attach(ctx, s.client(), path, opts); err != nil {
		return err
	}
	defer d.Abandon()
	if d.Size() != from && d.Size() != to || acked && d.Size() != to {
		return fmt.Errorf("%d bytes", d.Size())
	}
	if err := d.Grow(ctx, to); err != nil {
		return err
	}
	got := make([]byte, 4096)
	if err := d.ReadAt(ctx, got, to-4096); err != nil || acked && got[0] != 7 {
		return fmt.Errorf("its end has %d, acknowledged: %v, %w", got[0], acked, err)
	}
	if err := d.Close(ctx); err != nil {
		return err
	}
	h, err := disk.ReadHead(ctx, s.client(), path)
	if err == nil && (h.Size != to || h.State != format.StateClosed) {
		err = fmt.Errorf("%d bytes, %s", h.Size, h.State)
	}
	return err
}
