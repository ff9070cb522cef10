package tracing

import (
	"context"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/sluice-platform/sluice/internal/x/errs"
)

// Variables of the environment that switch tracing on, as OpenTelemetry names them. The exporter
// reads the others that it knows by itself, such as OTEL_EXPORTER_OTLP_HEADERS.
const (
	EnvEndpoint       = "OTEL_EXPORTER_OTLP_ENDPOINT"
	EnvTracesEndpoint = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
)

// Config says who traces, and who is told.
type Config struct {
	Service  string // such as sluice-worker
	Instance string // which of them; "" where there is one
	Version  string
	// Endpoint is the base URL of a collector that takes OTLP by HTTP, to which v1/traces is added;
	// "": that of the environment.
	Endpoint string
	Metrics  prometheus.Registerer
	Log      *slog.Logger
}

// Span is something that has ended.
type Span struct {
	// At is where the span is in its trace. Where only the trace is given, a fresh id is.
	At     Context
	Parent Context // none: it is the trace's first
	// Part is which part of the platform did it.
	Part, Name string
	Start, End time.Time
	Attributes []attribute.KeyValue
	Err        string // why it failed; "" if it didn't
}

// Attr is one attribute of a span.
func Attr(key, value string) attribute.KeyValue {
	return attribute.String("sluice."+key, valid(value))
}

// AttrInt is one attribute of a span that is a number.
func AttrInt(key string, value int64) attribute.KeyValue {
	return attribute.Int64("sluice."+key, value)
}

// Tracer tells of spans. Safe for concurrent use; a nil one tells nobody.
type Tracer struct {
	queue  *queue
	tracer trace.Tracer
}

// New returns a tracer that exports once Run is called. Invalid: the endpoint is no URL of HTTP.
func New(ctx context.Context, cfg Config) (*Tracer, error) {
	var opts []otlptracehttp.Option
	if cfg.Endpoint != "" {
		u, err := url.Parse(cfg.Endpoint)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, errs.New(errs.Invalid, "%q is no URL of a collector", cfg.Endpoint).
				WithRemedy("give one like http://collector:4318")
		}
		opts = append(opts, otlptracehttp.WithEndpointURL(u.JoinPath("v1/traces").String()))
	}
	exporter, err := otlptracehttp.New(ctx, opts...)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "make the exporter of traces")
	}
	q := newQueue(exporter, cfg)
	attrs := []attribute.KeyValue{attribute.String("service.name", cfg.Service),
		attribute.String("service.version", cfg.Version)}
	if cfg.Instance != "" {
		attrs = append(attrs, attribute.String("service.instance.id", cfg.Instance))
	}
	provider := sdk.NewTracerProvider(sdk.WithSampler(sdk.AlwaysSample()),
		sdk.WithIDGenerator(ids{}),
		sdk.WithResource(resource.NewSchemaless(attrs...)), sdk.WithSpanProcessor(q))
	return &Tracer{queue: q, tracer: provider.Tracer("sluice")}, nil
}

// Run exports until ctx ends, and then, shortly, what is left. A nil tracer has nothing to do.
func (t *Tracer) Run(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.queue.run(ctx)
}

// Tell tells of a span, and returns its place. It doesn't wait.
func (t *Tracer) Tell(s Span) Context {
	if t == nil || s.At.Trace == (trace.TraceID{}) {
		return Context{}
	}
	if s.At.Span == (trace.SpanID{}) {
		s.At = s.At.Sibling()
	}
	ctx := context.WithValue(context.Background(), placeKey{}, s.At)
	if !s.Parent.IsZero() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: s.Parent.Trace, SpanID: s.Parent.Span, TraceFlags: trace.FlagsSampled}))
	}
	if s.End.Before(s.Start) {
		s.End = s.Start // a clock was set back meanwhile
	}
	_, span := t.tracer.Start(ctx, valid(s.Name), trace.WithTimestamp(s.Start),
		trace.WithAttributes(append(s.Attributes, Attr("part", s.Part))...))
	if s.Err != "" {
		span.SetStatus(codes.Error, valid(s.Err))
	}
	span.End(trace.WithTimestamp(s.End))
	return s.At
}

// valid returns a text that can be exported: one span with another would cost its whole batch.
func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

// placeKey is of the place at which the next span is to be.
type placeKey struct{}

// ids gives a span the place that its context has.
type ids struct{}

// NewIDs implements sdk.IDGenerator.
func (ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	at, _ := ctx.Value(placeKey{}).(Context)
	return at.Trace, at.Span
}

// NewSpanID implements sdk.IDGenerator.
func (ids) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	at, _ := ctx.Value(placeKey{}).(Context)
	return at.Span
}
