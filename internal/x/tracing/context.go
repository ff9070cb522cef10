package tracing

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"go.opentelemetry.io/otel/trace"
)

// Context is a place in a trace under which spans may be put. The zero value is none.
type Context struct {
	Trace trace.TraceID
	Span  trace.SpanID
}

// Of returns a place in the trace of something that has a lasting id: the span of that name. It is
// the same in every process, and after a restart of one.
func Of(id, span string) Context {
	var c Context
	whole, part := sha256.Sum256([]byte(id)), sha256.Sum256([]byte(id+"\x00"+span))
	copy(c.Trace[:], whole[:])
	copy(c.Span[:], part[:])
	return c
}

// IsZero reports whether it is no place.
func (c Context) IsZero() bool { return c == Context{} }

// Sibling returns a new place in the same trace.
func (c Context) Sibling() Context {
	_, _ = rand.Read(c.Span[:]) // never fails, by its documentation
	return c
}

// String is the place in the words of W3C Trace Context, as a traceparent that is sampled; "" for
// none.
func (c Context) String() string {
	if c.IsZero() {
		return ""
	}
	return "00-" + c.Trace.String() + "-" + c.Span.String() + "-01"
}

// Parse reads a traceparent; none, where it isn't one.
func Parse(traceparent string) Context {
	var c Context
	parts := strings.Split(traceparent, "-")
	if len(parts) < 4 || len(parts[0]) != 2 || parts[0] == "ff" {
		return c
	}
	id, errID := hex.DecodeString(parts[1])
	span, errSpan := hex.DecodeString(parts[2])
	if errID != nil || errSpan != nil || len(id) != len(c.Trace) || len(span) != len(c.Span) {
		return c
	}
	copy(c.Trace[:], id)
	copy(c.Span[:], span)
	if !c.Trace.IsValid() || !c.Span.IsValid() {
		return Context{}
	}
	return c
}
