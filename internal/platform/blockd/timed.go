package blockd

import (
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

// takePartsLocked returns what was noted since it was called last. What is no part of another one
// is a part of the whole.
func (s *Server) takePartsLocked(whole string) []guestapi.Step {
	parts := s.parts
	s.parts = nil
	for i := range parts {
		if parts[i].Of == "" {
			parts[i].Of = whole
		}
	}
	return parts
}

// stepFrom returns a step that has just ended.
func stepFrom(name string, began time.Time) guestapi.Step {
	now := time.Now()
	return guestapi.Step{Name: name, Took: now.Sub(began), Ended: now}
}
