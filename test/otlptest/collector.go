// Package otlptest is a collector of traces, to which real processes export by OTLP over HTTP.
package otlptest

import (
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Span is a span as it was exported.
type Span struct {
	Service, Instance   string
	Trace, ID, ParentID string
	Part, Name          string
	Start, End          time.Time
	Attributes          map[string]string // without the prefix sluice.
	Failed              bool
}

// Took is how long it took.
func (s Span) Took() time.Duration { return s.End.Sub(s.Start) }

// Collector keeps every span that it is sent. Safe for concurrent use.
type Collector struct {
	URL string // its endpoint

	mu    sync.Mutex
	spans []Span
	bad   []error
}

// Start serves on l until the test ends, which fails if anything arrived that isn't OTLP.
func Start(t testing.TB, l net.Listener) *Collector {
	t.Helper()
	c := &Collector{URL: "http://" + l.Addr().String()}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", c.take)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-over
		for _, err := range c.bad {
			t.Errorf("the collector was sent what it can't read: %v", err)
		}
	})
	return c
}

func (c *Collector) take(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var req collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &req)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.bad = append(c.bad, err)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	for _, of := range req.ResourceSpans {
		resource := attributes(of.Resource.GetAttributes())
		for _, scope := range of.ScopeSpans {
			for _, s := range scope.Spans {
				c.spans = append(c.spans, spanOf(s, resource))
			}
		}
	}
	answer, err := proto.Marshal(&collector.ExportTraceServiceResponse{})
	if err != nil {
		c.bad = append(c.bad, err)
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(answer)
}

func spanOf(s *trace.Span, resource map[string]string) Span {
	attrs := attributes(s.Attributes)
	return Span{Service: resource["service.name"], Instance: resource["service.instance.id"],
		Trace: hex.EncodeToString(s.TraceId), ID: hex.EncodeToString(s.SpanId),
		ParentID: hex.EncodeToString(s.ParentSpanId), Name: s.Name, Part: attrs["part"],
		Start: at(s.StartTimeUnixNano), End: at(s.EndTimeUnixNano), Attributes: attrs,
		Failed: s.Status.GetCode() == trace.Status_STATUS_CODE_ERROR}
}

func at(nanos uint64) time.Time { return time.Unix(0, int64(nanos)) } //nolint:gosec // of our time

func attributes(all []*common.KeyValue) map[string]string {
	m := map[string]string{}
	for _, kv := range all {
		m[strings.TrimPrefix(kv.Key, "sluice.")] = kv.Value.GetStringValue()
	}
	return m
}

// Trace is the spans of one trace, by when they began.
type Trace []Span

// Traces returns what has arrived of the trace of each move, by the move's id, and what has arrived
// of others.
func (c *Collector) Traces() (moves map[string]Trace, others Trace) {
	c.mu.Lock()
	defer c.mu.Unlock()
	moves, ids := map[string]Trace{}, map[string]string{}
	for _, s := range c.spans {
		if s.Attributes["move"] != "" {
			ids[s.Trace] = s.Attributes["move"]
		}
	}
	for _, s := range c.spans {
		if id, ok := ids[s.Trace]; ok {
			moves[id] = append(moves[id], s)
		} else {
			others = append(others, s)
		}
	}
	for _, t := range moves {
		slices.SortStableFunc(t, func(a, b Span) int { return a.Start.Compare(b.Start) })
	}
	return moves, others
}

// Find returns the spans of a part of the platform that have a name.
func (t Trace) Find(part, name string) Trace {
	return slices.DeleteFunc(slices.Clone(t), func(s Span) bool {
		return s.Part != part || s.Name != name
	})
}

// Parent returns the span under which another one is; false if it isn't there.
func (t Trace) Parent(s Span) (Span, bool) {
	i := slices.IndexFunc(t, func(p Span) bool { return p.ID == s.ParentID })
	if i < 0 {
		return Span{}, false
	}
	return t[i], true
}

// Covered is for how much of a span some other one that counts was going on, by all processes'
// clocks.
func (t Trace) Covered(in Span, counts func(Span) bool) time.Duration {
	var sum time.Duration
	until := in.Start
	for _, s := range t { // by when they began
		if !counts(s) {
			continue
		}
		start, end := s.Start, s.End
		if start.Before(until) {
			start = until
		}
		if end.After(in.End) {
			end = in.End
		}
		if end.After(start) {
			sum += end.Sub(start)
			until = end
		}
	}
	return sum
}
