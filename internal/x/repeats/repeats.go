// Package repeats is a slog.Handler that lets what is said over and over through once, and then
// says how often it was said.
package repeats

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// maxKinds bounds how many different lines are watched; what comes beyond is let through.
const maxKinds = 256

// Handler decorates another one. Lines of one level and message, by a logger with the same
// attributes, are repeats; the attributes of the single line make no difference. Safe for
// concurrent use.
type Handler struct {
	next slog.Handler
	who  string // the logger's attributes and groups
	*shared
}

type shared struct {
	every time.Duration

	mu    sync.Mutex
	kinds map[string]*kind
}

// kind is what is known of lines that are repeats of each other.
type kind struct {
	first slog.Record
	next  slog.Handler
	held  int // repeats that were not let through
}

// New returns a handler over next that lets one line of each kind through in that time.
func New(next slog.Handler, every time.Duration) *Handler {
	return &Handler{next: next, shared: &shared{every: every, kinds: map[string]*kind{}}}
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Handler{next: h.next.WithAttrs(attrs), who: fmt.Sprint(h.who, attrs), shared: h.shared}
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{next: h.next.WithGroup(name), who: h.who + "/" + name, shared: h.shared}
}

// Handle implements slog.Handler. The time that counts is the records' own.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	name := r.Level.String() + " " + h.who + " " + r.Message
	h.mu.Lock()
	k := h.kinds[name]
	if k != nil && r.Time.Sub(k.first.Time) < h.every {
		k.held++
		h.mu.Unlock()
		return nil
	}
	over := h.endLocked(func(k *kind) bool { return r.Time.Sub(k.first.Time) >= h.every })
	if len(h.kinds) < maxKinds {
		h.kinds[name] = &kind{first: r.Clone(), next: h.next}
	}
	h.mu.Unlock()
	if err := tell(ctx, over); err != nil {
		return err
	}
	return h.next.Handle(ctx, r)
}

// Flush says how often what was held back was said, and begins anew.
func (h *Handler) Flush(ctx context.Context) error {
	h.mu.Lock()
	over := h.endLocked(func(*kind) bool { return true })
	h.mu.Unlock()
	return tell(ctx, over)
}

// endLocked forgets the kinds of which over is true, and returns those with repeats to tell of.
func (s *shared) endLocked(over func(*kind) bool) []*kind {
	var ended []*kind
	for name, k := range s.kinds {
		if !over(k) {
			continue
		}
		delete(s.kinds, name)
		if k.held > 0 {
			ended = append(ended, k)
		}
	}
	return ended
}

// tell repeats the first line of each kind, with how often it was said since.
func tell(ctx context.Context, over []*kind) error {
	for _, k := range over {
		k.first.AddAttrs(slog.Int("repeated", k.held))
		if err := k.next.Handle(ctx, k.first); err != nil {
			return err
		}
	}
	return nil
}
