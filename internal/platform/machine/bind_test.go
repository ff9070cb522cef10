package machine

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/platform/blockapi"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

// TestABindWaitsForBlockd: platformd answers as soon as it is up itself, and so may be asked for a
// machine before blockd listens. On a busy host that is no rare case.
func TestABindWaitsForBlockd(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "blockd.sock")
	p, err := New(Config{Dir: dir, Block: blockapi.NewClient(socket),
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	var prepared atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+blockapi.PathInfo,
		jsonhttp.Answering(func(context.Context, struct{}) (blockapi.Info, error) {
			return blockapi.Info{}, nil
		}))
	mux.HandleFunc("POST "+blockapi.PathPrepare,
		jsonhttp.Answering(func(context.Context, guestapi.StoreAccess) (any, error) {
			prepared.Store(true)
			return struct{}{}, nil
		}))
	mux.HandleFunc("POST "+blockapi.PathAttach,
		jsonhttp.Answering(func(context.Context, blockapi.Attach) (blockapi.Info, error) {
			return blockapi.Info{Device: "/dev/a"}, nil
		}))
	for what, do := range map[string]func() error{
		"attach": func() error {
			device, err := p.attachDisk(t.Context(), guestapi.Bind{})
			if device != "/dev/a" {
				t.Errorf("the device is %q", device)
			}
			return err
		},
		"prepare": func() error {
			err := p.status.update(func(s *saved) { s.Prepare = &guestapi.Prepare{} })
			return errors.Join(err, p.prepare(t.Context(), nil))
		},
	} {
		blockd := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
		var g errgroup.Group
		g.Go(func() error {
			time.Sleep(50 * time.Millisecond)
			l, err := net.Listen("unix", socket)
			if err != nil {
				return err
			}
			return blockd.Serve(l)
		})
		if err := do(); err != nil {
			t.Errorf("%s before blockd is up: %v", what, err)
		}
		_ = blockd.Close()
		if err := g.Wait(); !errors.Is(err, http.ErrServerClosed) {
			t.Fatal(err)
		}
	}
	if !prepared.Load() {
		t.Error("the disk was not prepared")
	}
}
