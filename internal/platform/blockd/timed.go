package blockd

import (
	"cmp"
	"slices"
	"time"

	"github.com/sluice-platform/sluice/internal/guestapi"
)

// mostParts bounds what is kept of one attach or close: a replay may write many fences.
const mostParts = 32

// timed notes a part of an attach or a close that has just ended.
func (s *Server) timed(name, of string, began time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.parts) == mostParts {
		return
	}
	step := stepFrom(name, began)
	step.Of = of
	s.parts = append(s.parts, step)
}

// beginParts forgets what was timed before, also of an attempt that failed.
func (s *Server) beginParts() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts = nil
}

// partsLocked returns what was timed since beginParts. What is no part of another one is a part of
// the whole.
func (s *Server) partsLocked(whole string) []guestapi.Step {
	parts := slices.Clone(s.parts)
	for i := range parts {
		parts[i].Of = cmp.Or(parts[i].Of, whole)
	}
	return parts
}

// stepFrom returns a step that has just ended.
func stepFrom(name string, began time.Time) guestapi.Step {
	now := time.Now()
	return guestapi.Step{Name: name, Took: now.Sub(began), Ended: now}
}
