package blockd

import (
	"context"
	"encoding/json"
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
	"github.com/sluice-platform/sluice/internal/x/errs"
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
		answering(func(context.Context, struct{}) (blockapi.Info, error) { return s.info(), nil }))
	mux.HandleFunc("GET "+blockapi.PathStats,
		answering(func(context.Context, struct{}) (disk.Stats, error) {
			d, err := s.current()
			if err != nil {
				return disk.Stats{}, err
			}
			return d.Stats(), nil
		}))
	mux.HandleFunc("POST "+blockapi.PathPrepare,
		answering(func(ctx context.Context, store guestapi.StoreAccess) (struct{}, error) {
			return struct{}{}, s.prepare(ctx, store)
		}))
	mux.HandleFunc("POST "+blockapi.PathAttach, answering(s.attach))
	mux.HandleFunc("POST "+blockapi.PathClose,
		answering(func(ctx context.Context, _ struct{}) (blockapi.Info,
			error) {
			return s.close(ctx)
		}))
	mux.HandleFunc("POST "+blockapi.PathAbandon,
		answering(func(ctx context.Context, _ struct{}) (blockapi.Info,
			error) {
			return s.abandon(ctx)
		}))
	mux.HandleFunc("GET "+blockapi.PathWatch,
		answering(func(ctx context.Context, _ struct{}) (struct{}, error) {
			return struct{}{}, s.awaitStopped(ctx)
		}))
	mux.HandleFunc("POST "+blockapi.PathStall, answering(s.awaitStall))
	mux.HandleFunc("POST "+blockapi.PathHold,
		answering(func(_ context.Context, h blockapi.Hold) (struct{}, error) {
			return struct{}{}, s.hold(h)
		}))
	mux.HandleFunc("POST "+blockapi.PathSettle,
		answering(func(ctx context.Context, _ struct{}) (struct{}, error) {
			return struct{}{}, s.settle(ctx)
		}))
	mux.HandleFunc("POST "+blockapi.PathCheckpoint,
		answering(func(ctx context.Context, c blockapi.Checkpoint) (struct{}, error) {
			d, err := s.current()
			if err != nil {
				return struct{}{}, err
			}
			return struct{}{}, d.Checkpoint(ctx, c.Name)
		}))
	mux.HandleFunc("GET "+blockapi.PathCheckpoints,
		answering(func(ctx context.Context, _ struct{}) ([]blockapi.Checkpoint, error) {
			d, err := s.current()
			if err != nil {
				return nil, err
			}
			return d.Checkpoints(ctx)
		}))
	return mux
}

// answering makes a handler of a function from a JSON body to a JSON answer.
func answering[Q, A any](fn func(context.Context, Q) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q Q
		if r.Method == http.MethodPost {
			if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(
				&q); err != nil {
				fail(w, errs.Wrap(errs.Invalid, err, "decode request"))
				return
			}
		}
		a, err := fn(r.Context(), q)
		if err != nil {
			fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a) // the caller has gone if this fails, and asks again
	}
}

func fail(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	// the kind is in the body; the status has no meaning here
	w.WriteHeader(http.StatusInternalServerError)
	_ = json.NewEncoder(w).Encode(guestapi.Error{Kind: string(errs.KindOf(err)),
		Message: err.Error(), Remedy: errs.RemedyOf(err)})
}
