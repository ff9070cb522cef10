package main

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-platform/sluice/internal/x/tracing"
)

const otlpHelp = "URL of a collector of OpenTelemetry, to send traces of moves to (default $" +
	tracing.EnvEndpoint + "; none: no traces)"

// tracingOn reports whether somebody is named to send traces to.
func (d *deps) tracingOn(endpoint string) bool {
	return endpoint != "" || d.env(tracing.EnvEndpoint) != "" ||
		d.env(tracing.EnvTracesEndpoint) != ""
}

// newTracer returns who is told of the traces of one process.
func newTracer(ctx context.Context, role, instance, endpoint string, reg prometheus.Registerer,
	log *slog.Logger) (*tracing.Tracer, error) {
	return tracing.New(ctx, tracing.Config{Service: "sluice-" + role, Instance: instance,
		Version: buildVersion(), Endpoint: endpoint, Metrics: reg,
		Log: log.With("component", "traces")})
}
