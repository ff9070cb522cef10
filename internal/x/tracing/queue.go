package tracing

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

const (
	queueSize    = 4096 // spans that wait to be exported; a move has some fifty
	batchSize    = 512
	batchWait    = time.Second      // longest from a span's end until it is exported
	exportWithin = 10 * time.Second // of one batch, with what the exporter tries again
	lastWithin   = 2 * time.Second  // for what is left when the process ends
	sayEvery     = time.Minute      // between two lines about a collector that takes nothing
)

// queue holds spans until they are exported. Unlike the SDK's own it counts what it drops.
type queue struct {
	exporter sdk.SpanExporter
	spans    chan sdk.ReadOnlySpan
	results  *prometheus.CounterVec
	log      *slog.Logger
	said     time.Time // owned by run
}

var _ sdk.SpanProcessor = (*queue)(nil)

// What becomes of a span.
const (
	sent    = "sent"
	dropped = "dropped" // the queue was full
	failed  = "failed"  // the collector didn't take it
)

func newQueue(exporter sdk.SpanExporter, cfg Config) *queue {
	q := &queue{exporter: exporter, spans: make(chan sdk.ReadOnlySpan, queueSize), log: cfg.Log,
		results: promauto.With(cfg.Metrics).NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_trace_spans_total",
			Help: "Spans of traces, by what became of them: sent, dropped (the queue was full) or failed.",
		}, []string{"result"})}
	for _, r := range []string{sent, dropped, failed} {
		q.results.WithLabelValues(r)
	}
	return q
}

// OnStart implements sdk.SpanProcessor.
func (q *queue) OnStart(context.Context, sdk.ReadWriteSpan) {}

// OnEnd implements sdk.SpanProcessor. It never waits.
func (q *queue) OnEnd(s sdk.ReadOnlySpan) {
	select {
	case q.spans <- s:
	default:
		q.results.WithLabelValues(dropped).Inc()
	}
}

// Shutdown implements sdk.SpanProcessor. run does it.
func (q *queue) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdk.SpanProcessor. Nobody asks for it.
func (q *queue) ForceFlush(context.Context) error { return nil }

// run exports batches until ctx ends, and then what is left, for a moment.
func (q *queue) run(ctx context.Context) error {
	var batch []sdk.ReadOnlySpan
	for {
		batch = q.collect(ctx)
		if ctx.Err() != nil {
			break
		}
		q.export(ctx, batch)
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWithin)
	defer cancel()
	for batch = q.take(batch); len(batch) > 0; batch = q.take(nil) {
		q.export(last, batch)
	}
	_ = q.exporter.Shutdown(last) // nobody is left to be told
	return nil
}

// collect waits for a span, and a moment for those that come with it, or until a batch is full.
func (q *queue) collect(ctx context.Context) []sdk.ReadOnlySpan {
	var batch []sdk.ReadOnlySpan
	var wait <-chan time.Time
	for len(batch) < batchSize {
		select {
		case s := <-q.spans:
			batch = append(batch, s)
		case <-wait:
			return batch
		case <-ctx.Done():
			return batch
		}
		if wait == nil {
			wait = time.After(batchWait)
		}
	}
	return batch
}

// take adds to a batch what is queued, up to the size of one.
func (q *queue) take(batch []sdk.ReadOnlySpan) []sdk.ReadOnlySpan {
	for len(batch) < batchSize {
		select {
		case s := <-q.spans:
			batch = append(batch, s)
		default:
			return batch
		}
	}
	return batch
}

func (q *queue) export(ctx context.Context, batch []sdk.ReadOnlySpan) {
	ctx, cancel := context.WithTimeout(ctx, exportWithin)
	defer cancel()
	err := q.exporter.ExportSpans(ctx, batch)
	if err == nil {
		q.results.WithLabelValues(sent).Add(float64(len(batch)))
		return
	}
	q.results.WithLabelValues(failed).Add(float64(len(batch)))
	if time.Since(q.said) > sayEvery {
		q.said = time.Now()
		q.log.WarnContext(ctx, "traces could not be exported; they are lost", "spans", len(batch),
			"error", err)
	}
}
