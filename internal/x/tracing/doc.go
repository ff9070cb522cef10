// Package tracing tells a collector, by OTLP, of what has ended: spans, with the times that were
// measured when they happened.
//
// Invariants: a span is told once, when it has ended, and telling it never waits: what the queue
// can't hold is dropped and counted. A nil Tracer tells nobody, and costs nothing. Ids of traces,
// and of spans under which another process puts its own, follow from a name that both know.
package tracing
