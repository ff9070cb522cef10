package blockd

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/sluice-platform/sluice/internal/disk/diskapi"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/platform/blockapi"
)

// Run serves on a unix socket until ctx ends, then abandons the disk.
func (s *Server) Run(ctx context.Context, socket string) error {
	srv, err := diskapi.Listen(ctx, socket, s.handler())
	if err != nil {
		return err
	}
	err = srv.Run(ctx)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	return errors.Join(err, s.Stop(last))
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+blockapi.PathInfo,
		diskapi.Answering(func(context.Context, struct{}) (blockapi.Info, error) {
			return s.info(), nil
		}))
	mux.Handle(diskapi.PathDisk+"/", http.StripPrefix(diskapi.PathDisk, diskapi.Handler(s)))
	mux.HandleFunc("POST "+blockapi.PathPrepare,
		diskapi.Answering(func(ctx context.Context, store guestapi.StoreAccess) (struct{}, error) {
			return struct{}{}, s.prepare(ctx, store)
		}))
	mux.HandleFunc("POST "+blockapi.PathAttach, diskapi.Answering(s.attach))
	mux.HandleFunc("POST "+blockapi.PathClose,
		diskapi.Answering(func(ctx context.Context, _ struct{}) (blockapi.Info, error) {
			return s.close(ctx)
		}))
	mux.HandleFunc("POST "+blockapi.PathAbandon,
		diskapi.Answering(func(ctx context.Context, _ struct{}) (blockapi.Info, error) {
			return s.abandon(ctx)
		}))
	mux.HandleFunc("GET "+blockapi.PathWatch,
		diskapi.Answering(func(ctx context.Context, _ struct{}) (struct{}, error) {
			return struct{}{}, s.awaitStopped(ctx)
		}))
	mux.HandleFunc("POST "+blockapi.PathHold,
		diskapi.Answering(func(_ context.Context, h blockapi.Hold) (struct{}, error) {
			return struct{}{}, s.hold(h)
		}))
	mux.HandleFunc("POST "+blockapi.PathSettle,
		diskapi.Answering(func(ctx context.Context, _ struct{}) (struct{}, error) {
			return struct{}{}, s.settle(ctx)
		}))
	return mux
}
