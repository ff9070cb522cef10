package control

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/state/memstate"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

type countedGarbage struct{ n atomic.Int32 }

func (g *countedGarbage) Collect(context.Context) (string, error) {
	if g.n.Add(1) == 1 {
		return "", errs.New(errs.Unavailable, "the first one fails")
	}
	return "nothing", nil
}

type noPool struct{}

func (noPool) ForkImage(context.Context, fleet.Image, string, int64, disk.KEK) error { return nil }
func (noPool) WriteOwner(context.Context, string, []byte) error                      { return nil }
func (noPool) Destroy(context.Context, string) error                                 { return nil }
func (noPool) Rekey(context.Context, string, disk.KEK, disk.KEK) error               { return nil }
func (noPool) Build(context.Context, fleet.ImageName, int64, io.Reader) (fleet.Image, error) {
	return fleet.Image{}, nil
}

func TestCollectsWhenItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &countedGarbage{}
		c, err := New(Config{FleetID: "f", StoreURL: "mem://pool", CollectEvery: time.Hour},
			Deps{Store: memstate.New(memstate.Config{}),
				Disks: noPool{}, Images: noPool{}, Garbage: g, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var run errgroup.Group
		run.Go(func() error { return c.collects(ctx) })
		after := func(d time.Duration, want int32, what string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if n := g.n.Load(); n != want {
				t.Fatalf("%s: %d collections, want %d", what, n, want)
			}
		}
		after(30*time.Minute, 1, "it has just started")
		after(time.Hour, 2, "one that failed is made up for")
		brake := "half the fleet is silent"
		c.brake.Store(&brake)
		after(3*time.Hour, 2, "under the brake")
		brake = ""
		c.brake.Store(&brake)
		after(time.Hour, 3, "without the brake")
		cancel()
		if err := run.Wait(); err != nil {
			t.Fatal(err)
		}
	})
}
