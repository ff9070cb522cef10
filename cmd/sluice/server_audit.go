package main

import (
	"context"
	"log/slog"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/internal/audit"
	"github.com/sluice-platform/sluice/internal/blob"
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

// serveAPI serves the API with the tokens and roles that their files have, and the audit log as
// long as the last of its calls needs that: longer than ctx.
func (f *serverFlags) serveAPI(ctx context.Context, g *errgroup.Group, s serving, l *audit.Log,
	log *slog.Logger) {
	g.Go(func() error { return operatorTokens(f.operatorToken, s.api).every(ctx, log, filesEvery) })
	if s.people != nil {
		g.Go(func() error { return s.people.Run(ctx) })
		g.Go(func() error { return roles(f.people.roles, s.people).every(ctx, log, filesEvery) })
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	g.Go(func() error { return l.Run(life) })
	g.Go(func() error {
		defer end()
		return s.api.Run(ctx, bare(s.at)...)
	})
}
