package main

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-platform/sluice/internal/control"
	"github.com/sluice-platform/sluice/internal/control/metrics"
	"github.com/sluice-platform/sluice/internal/control/traces"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/httpapi"
	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/state/etcdstate"
	"github.com/sluice-platform/sluice/internal/state/metered"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/expose"
	"github.com/sluice-platform/sluice/internal/x/tracing"
)

const metricsTokenHelp = "file with a token for GET /metrics alone, to give to Prometheus"

// minToken is the least that the API takes for a token.
const minToken = 16

// readOptionalToken is readToken; "" where no file is named.
func readOptionalToken(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	token, err := readToken(file)
	if err == nil && len(token) < minToken {
		err = errs.New(errs.Invalid, "the token in %s has %d characters; it must have at least %d",
			file,
			len(token), minToken).
			WithRemedy("write a random token of at least %d characters into it", minToken)
	}
	return token, err
}

// serverSight is how a server is seen from outside.
type serverSight struct {
	reg    *prometheus.Registry
	state  state.Store // measured
	moves  *metrics.Moves
	traces *tracing.Tracer // nil: nobody is told
}

func (d *deps) newServerSight(ctx context.Context, etcd *etcdstate.Embedded, otlp string,
	log *slog.Logger) (serverSight, error) {
	reg := expose.NewRegistry("server", buildVersion())
	metered.RegisterSize(reg, etcd.Size)
	s := serverSight{reg: reg, state: metered.New(etcd.Store(), reg), moves: metrics.NewMoves(reg)}
	if !d.tracingOn(otlp) {
		return s, nil
	}
	var err error
	s.traces, err = newTracer(ctx, "server", "", otlp, reg, log)
	return s, err
}

// moveEnded counts a move, and tells of its trace.
func (s serverSight) moveEnded(mv fleet.Move) {
	s.moves.Ended(mv)
	if s.traces != nil {
		traces.Ended(s.traces, mv)
	}
}

// ofAPI returns what serves the metrics, and what counts the calls of the API among them.
func (s serverSight) ofAPI(log *slog.Logger) (http.Handler, *expose.Requests) {
	return expose.Handler(s.reg, log), httpapi.NewRequests(s.reg)
}

// watch has scrapes ask the control plane.
func (s serverSight) watch(c *control.Control) error {
	expose.RegisterReady(s.reg, func() []string { return c.Lacks(context.Background()) })
	return metrics.Watch(s.reg, c)
}
