package blockd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/platform/blockapi"
	"github.com/sluice-platform/sluice/internal/x/jsonhttp"
)

// Run serves on a unix socket until ctx ends, then abandons the disk.
func (s *Server) Run(ctx context.Context, socket string) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove an old socket: %w", err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	srv := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	g.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return srv.Close()
	})
	err = g.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	return errors.Join(err, s.Stop(last))
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+blockapi.PathInfo,
		jsonhttp.Answering(func(context.Context, struct{}) (blockapi.Info, error) {
			return s.info(), nil
		}))
	mux.HandleFunc("GET "+blockapi.PathStats,
		jsonhttp.Answering(func(context.Context, struct{}) (disk.Stats, error) {
			d, err := s.current()
			if err != nil {
				return disk.Stats{}, err
			}
			return d.Stats(), nil
		}))
	mux.HandleFunc("POST "+blockapi.PathPrepare,
		jsonhttp.Answering(func(ctx context.Context, store guestapi.StoreAccess) (struct{}, error) {
			return struct{}{}, s.prepare(ctx, store)
		}))
	mux.HandleFunc("POST "+blockapi.PathAttach, jsonhttp.Answering(s.attach))
	mux.HandleFunc("POST "+blockapi.PathClose,
		jsonhttp.Answering(func(ctx context.Context, _ struct{}) (blockapi.Info,
			error) {
			return s.close(ctx)
		}))
	mux.HandleFunc("POST "+blockapi.PathAbandon,
		jsonhttp.Answering(func(ctx context.Context, _ struct{}) (blockapi.Info,
			error) {
			return s.abandon(ctx)
		}))
	mux.HandleFunc("GET "+blockapi.PathWatch,
		jsonhttp.Answering(func(ctx context.Context, _ struct{}) (struct{}, error) {
			return struct{}{}, s.awaitStopped(ctx)
		}))
	mux.HandleFunc("POST "+blockapi.PathStall, jsonhttp.Answering(s.awaitStall))
	mux.HandleFunc("POST "+blockapi.PathHold,
		jsonhttp.Answering(func(_ context.Context, h blockapi.Hold) (struct{}, error) {
			return struct{}{}, s.hold(h)
		}))
	mux.HandleFunc("POST "+blockapi.PathSettle,
		jsonhttp.Answering(func(ctx context.Context, _ struct{}) (struct{}, error) {
			return struct{}{}, s.settle(ctx)
		}))
	mux.HandleFunc("POST "+blockapi.PathCheckpoint,
		jsonhttp.Answering(func(ctx context.Context, c blockapi.Checkpoint) (struct{}, error) {
			d, err := s.current()
			if err != nil {
				return struct{}{}, err
			}
			return struct{}{}, d.Checkpoint(ctx, c.Name)
		}))
	mux.HandleFunc("GET "+blockapi.PathCheckpoints,
		jsonhttp.Answering(func(ctx context.Context, _ struct{}) ([]blockapi.Checkpoint, error) {
			d, err := s.current()
			if err != nil {
				return nil, err
			}
			return d.Checkpoints(ctx)
		}))
	return mux
}
