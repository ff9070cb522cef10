package tracing_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"

	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/tracing"
	"github.com/sluice-platform/sluice/test/otlptest"
)

func TestContext(t *testing.T) {
	c := tracing.Of("01JZ", "move")
	if c != tracing.Of("01JZ", "move") || c == tracing.Of("01JZ", "pause") ||
		c.Trace != tracing.Of("01JZ", "pause").Trace ||
		c.Trace == tracing.Of("01K0", "move").Trace {
		t.Error("places don't follow from their names alone")
	}
	if got := tracing.Parse(c.String()); got != c {
		t.Errorf("%s is read as %s", c, got)
	}
	for _, bad := range []string{"", "00-1-2-01", c.String()[:50], "ff" + c.String()[2:],
		"00-00000000000000000000000000000000-0000000000000001-01",
		"00-zz" + c.String()[5:]} {
		if got := tracing.Parse(bad); !got.IsZero() {
			t.Errorf("%q is read as %s", bad, got)
		}
	}
}

func TestEndpointIsRefused(t *testing.T) {
	for _, bad := range []string{"collector:4318", "ftp://collector", "http://"} {
		if _, err := newTracer(t, bad, prometheus.NewRegistry()); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestNobodyWaits has a collector that never answers, and more spans than the queue holds: telling
// them takes no time, those that are lost are counted, and the end is not held up.
func TestNobodyWaits(t *testing.T) {
	hung := make(chan struct{})
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hung:
		case <-r.Context().Done():
		}
	}))
	defer collector.Close()
	defer close(hung)
	reg := prometheus.NewRegistry()
	tracer, err := newTracer(t, collector.URL, reg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- tracer.Run(ctx) }()
	const told = 10_000
	for range told {
		tracer.Tell(tracing.Span{At: tracing.Of("x", "move"), Name: "move", Start: time.Now(),
			End: time.Now()})
	}
	if n := count(t, reg, "dropped"); n < told/2 || count(t, reg, "sent") > 0 {
		t.Errorf("%v of %d spans are counted as dropped", n, told)
	}
	cancel()
	if err := <-over; err != nil {
		t.Error(err)
	}
	if n := count(t, reg, "dropped") + count(t, reg, "failed"); n != told {
		t.Errorf("%v of %d spans are counted as lost", n, told)
	}
}

// TestTextOfAnySortIsExported: what a VM or a store calls things, cut anywhere, costs neither its
// span nor the others that are exported with it.
func TestTextOfAnySortIsExported(t *testing.T) {
	collector := otlptest.Start(t, listen(t))
	reg := prometheus.NewRegistry()
	tracer, err := newTracer(t, collector.URL, reg)
	if err != nil {
		t.Fatal(err)
	}
	const cut = "caf\xc3"
	now, at := time.Now(), tracing.Of("01JZ", "move")
	tracer.Tell(tracing.Span{At: at, Name: cut, Part: cut, Err: cut, Start: now, End: now,
		Attributes: []attribute.KeyValue{tracing.Attr("move", "01JZ"), tracing.Attr("note", cut)}})
	tracer.Tell(tracing.Span{At: tracing.Context{Trace: at.Trace}, Parent: at, Name: "other",
		Start: now, End: now})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tracer.Run(ended); err != nil { // exports what is left
		t.Fatal(err)
	}
	if n := count(t, reg, "sent"); n != 2 {
		t.Errorf("%v of 2 spans were exported", n)
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func newTracer(t *testing.T, endpoint string, reg *prometheus.Registry) (*tracing.Tracer, error) {
	return tracing.New(t.Context(), tracing.Config{Service: "sluice-test", Endpoint: endpoint,
		Metrics: reg, Log: slog.New(slog.DiscardHandler)})
}

func count(t *testing.T, reg *prometheus.Registry, result string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == "sluice_trace_spans_total" && m.Label[0].GetValue() == result {
				return m.Counter.GetValue()
			}
		}
	}
	t.Fatalf("nothing is counted as %s", result)
	return 0
}
