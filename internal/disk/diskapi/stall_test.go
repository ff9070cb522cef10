package diskapi_test

import (
	"context"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/blob/decorate"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/disk/diskapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// gate lets requests to a store through, or fails them.
type gate struct {
	mu   sync.Mutex
	shut bool
}

func (g *gate) before(context.Context, decorate.Op, string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return errs.New(errs.Unavailable, "the store is away")
	}
	return nil
}

func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
}

// later gives its disk when that is attached.
type later struct {
	there chan struct{}
	disk  diskapi.Disk
}

func (l *later) Disk() (diskapi.Disk, error) { return nothing{}.Disk() }

func (l *later) AwaitDisk(ctx context.Context) (diskapi.Disk, error) {
	select {
	case <-l.there:
		return l.disk, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// TestStall: a stall is told when it begins, while it goes on, and when it ends, also to who asked
// before there was a disk.
func TestStall(t *testing.T) {
	t.Parallel()
	var store gate
	at := &later{there: make(chan struct{})}
	c, ctx := client(t, serve(t, diskapi.Handler(at)), ""), wait(t)
	var begun *disk.Stall
	var g errgroup.Group
	g.Go(func() (err error) {
		begun, err = c.AwaitStall(ctx, nil)
		return err
	})
	d := attach(t, decorate.Intercept(memblob.New(), store.before))
	at.disk = d
	close(at.there)
	store.set(true)
	if err := d.WriteAt(ctx, make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	var flush errgroup.Group
	flush.Go(func() error { return d.Flush(ctx) })
	if err := g.Wait(); err != nil || begun == nil || begun.Kind != errs.Unavailable ||
		begun.Reason == "" || begun.Remedy == "" {
		t.Fatalf("stall %+v, %v", begun, err)
	}
	known := begun
	// told again and again, and then with since when the flush waits
	for n := 0; n < 2 || known.HeldSince.IsZero(); n++ {
		now, err := c.AwaitStall(ctx, known)
		if err != nil || now == nil || !now.Since.Equal(begun.Since) {
			t.Fatalf("it goes on: %+v, %v", now, err)
		}
		known = now
	}
	store.set(false)
	for known != nil {
		now, err := c.AwaitStall(ctx, known)
		if err != nil {
			t.Fatal(err)
		}
		known = now
	}
	if err := flush.Wait(); err != nil {
		t.Error(err)
	}
}

// TestStallOfADiskThatHasStopped: it has none, and who asks waits until they give up.
func TestStallOfADiskThatHasStopped(t *testing.T) {
	d := attach(t, memblob.New())
	c := client(t, serve(t, diskapi.Handler(diskapi.Attached(d))), "")
	d.Abandon()
	now, err := c.AwaitStall(wait(t), &disk.Stall{})
	if err != nil || now != nil {
		t.Errorf("stall %+v, %v", now, err)
	}
}
