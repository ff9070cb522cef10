package machine

import (
	"context"
	"time"

	"github.com/sluice-platform/sluice/internal/guestapi"
)

// maxSteps bounds the list, to which each new try of something adds.
const maxSteps = 64

// took notes a step that has just ended; of is the step that it is a part of, or "".
func (p *Platform) took(ctx context.Context, name, of string, began time.Time) {
	now := time.Now()
	step := guestapi.Step{Name: name, Of: of, Took: now.Sub(began), Ended: now}
	p.logStep(ctx, step)
	_ = p.status.update(func(s *saved) { addSteps(s, step) })
}

func (p *Platform) logStep(ctx context.Context, s guestapi.Step) {
	p.log.InfoContext(ctx, "step done", "step", s.Name,
		"took_ms", float64(s.Took.Microseconds())/1000)
}

// timed does a part of the bringing up, and notes how long it took.
func (p *Platform) timed(ctx context.Context, name string, do func() error) error {
	began := time.Now()
	err := do()
	p.took(ctx, name, guestapi.StepBringUp, began)
	return err
}

func addSteps(s *saved, steps ...guestapi.Step) {
	s.Health.Steps = append(s.Health.Steps, steps...)
	if extra := len(s.Health.Steps) - maxSteps; extra > 0 {
		s.Health.Steps = s.Health.Steps[extra:]
	}
}

// addBlockSteps adds what blockd did for a step of ours.
func addBlockSteps(s *saved, of string, told []guestapi.Step) {
	steps := guestapi.HearSteps(told, time.Now())
	for i := range steps {
		steps[i].By = "blockd"
		if steps[i].Of == "" {
			steps[i].Of = of
		}
	}
	addSteps(s, steps...)
}

// reachBy is reach, and adds the step that led there and began at a time.
func reachBy(s *saved, st guestapi.State, name string, began time.Time) {
	before := s.Health.State
	reach(s, st)
	if s.Health.State == before {
		return
	}
	now := time.Now()
	addSteps(s, guestapi.Step{Name: name, Took: now.Sub(began), Ended: now})
}

// told is a health as it is told now.
func told(h guestapi.Health) guestapi.Health {
	h.Steps = guestapi.TellSteps(h.Steps, time.Now())
	return h
}
