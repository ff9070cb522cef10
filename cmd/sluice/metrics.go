package main

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-platform/sluice/internal/control"
	"github.com/sluice-platform/sluice/internal/control/metrics"
	"github.com/sluice-platform/sluice/internal/httpapi"
	"github.com/sluice-platform/sluice/internal/state"
	"github.com/sluice-platform/sluice/internal/state/etcdstate"
	"github.com/sluice-platform/sluice/internal/state/metered"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/expose"
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

// serverMetrics is how a server is seen from outside.
type serverMetrics struct {
	reg   *prometheus.Registry
	state state.Store // measured
	moves *metrics.Moves
}

func newServerMetrics(etcd *etcdstate.Embedded) serverMetrics {
	reg := expose.NewRegistry("server", buildVersion())
	metered.RegisterSize(reg, etcd.Size)
	return serverMetrics{reg: reg, state: metered.New(etcd.Store(), reg),
		moves: metrics.NewMoves(reg)}
}

// ofAPI returns what serves the metrics, and what counts the calls of the API among them.
func (m serverMetrics) ofAPI(log *slog.Logger) (http.Handler, *expose.Requests) {
	return expose.Handler(m.reg, log), httpapi.NewRequests(m.reg)
}

// watch has scrapes ask the control plane.
func (m serverMetrics) watch(c *control.Control) error {
	expose.RegisterReady(m.reg, func() []string { return c.Lacks(context.Background()) })
	return metrics.Watch(m.reg, c)
}
