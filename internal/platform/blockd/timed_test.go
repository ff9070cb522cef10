package blockd

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/blob/gatewayhttp"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/platform/blockapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// closesLate is an engine of disks whose first close fails when it is done.
type closesLate struct{ Engine }

func (e closesLate) Attach(ctx context.Context, a blockapi.Attach,
	timed func(part, of string, began time.Time)) (Disk, error) {
	d, err := e.Engine.Attach(ctx, a, timed)
	return &closedLate{Disk: d, timed: timed}, err
}

type closedLate struct {
	Disk
	timed func(part, of string, began time.Time)
	tried bool
}

func (d *closedLate) Close(ctx context.Context) error {
	if !d.tried {
		d.tried = true
		d.timed("flush", "", time.Now())
		return errs.New(errs.Unavailable, "the store is away")
	}
	return d.Disk.Close(ctx)
}

// TestPartsAreOfOneAttempt: what an attempt that failed had done is no part of the next one.
func TestPartsAreOfOneAttempt(t *testing.T) {
	store := memblob.New()
	if _, err := disk.Create(t.Context(), store, "disks/x",
		disk.CreateOptions{Size: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	gateway := httptest.NewServer(gatewayhttp.New(store,
		gatewayhttp.AuthorizerFunc(nobodyElse), gatewayhttp.Config{}))
	defer gateway.Close()
	log := slog.New(slog.DiscardHandler)
	shows := false
	s := New(Config{Log: log,
		Engine: closesLate{NewEngine(EngineConfig{GatewayURL: gateway.URL, Log: log})},
		Show: func(context.Context, disk.Device, string) (Shown, error) {
			if !shows {
				return nil, errs.New(errs.Unavailable, "no device")
			}
			return nil, nil
		}})
	a := blockapi.Attach{Generation: 1, Holder: "test",
		Store: guestapi.StoreAccess{DiskPath: "disks/x", Token: "t"}}
	if _, err := s.attach(t.Context(), a); !errs.Is(err, errs.Unavailable) {
		t.Fatalf("attach: %v", err)
	}
	shows, a.Generation = true, 2
	info, err := s.attach(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	once(t, info.Steps, "read head", "swap head", "disk attach")
	if _, err := s.close(t.Context()); !errs.Is(err, errs.Unavailable) {
		t.Fatalf("close: %v", err)
	}
	if info, err = s.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	once(t, info.Steps, "flush", "write map", "disk close")
}

func nobodyElse(*http.Request, string, string, int64) error { return nil }

// once fails the test unless each step is there, once.
func once(t *testing.T, steps []guestapi.Step, names ...string) {
	t.Helper()
	for _, name := range names {
		n := 0
		for _, s := range steps {
			if s.Name == name {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%q is there %d times: %+v", name, n, steps)
		}
	}
}
