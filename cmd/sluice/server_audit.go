package main

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/audit"
	"github.com/sluice-platform/sluice/internal/blob"
	"github.com/sluice-platform/sluice/internal/httpapi"
)

// openAudit opens the audit log, which waits in --data for the store to take it.
func (f *serverFlags) openAudit(store blob.Store, seen serverSight,
	log *slog.Logger) (*audit.Log, error) {
	l, err := audit.Open(audit.Config{Dir: filepath.Join(f.data, "audit"), Fleet: f.fleetID},
		audit.Deps{Store: store, State: seen.state, Log: log.With("component", "audit")})
	if err != nil {
		return nil, err
	}
	return l, audit.Watch(seen.reg, l)
}

// serveAPI serves the API with the tokens that the operators' file has, and the audit log as long
// as the last of its calls needs that: longer than ctx.
func (f *serverFlags) serveAPI(ctx context.Context, g *errgroup.Group, a *httpapi.API,
	l *audit.Log, log *slog.Logger, listeners []net.Listener) {
	g.Go(func() error {
		tick := time.NewTicker(operatorTokensEvery)
		defer tick.Stop()
		return followOperatorTokens(ctx, f.operatorToken, a, log, tick.C)
	})
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	g.Go(func() error { return l.Run(life) })
	g.Go(func() error {
		defer end()
		return a.Run(ctx, listeners...)
	})
}
