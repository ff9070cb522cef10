package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// goal is something that a command waits for.
type goal struct {
	name string // completes "machine web-1 is not …"
	wait func(ctx context.Context, c *client.Client, id string) (api.Machine, error)
}

func untilHealthy() goal { return goal{"healthy", waitStarted} }
func untilStopped() goal { return goal{"stopped", waitStopped} }

// finalQueryTimeout bounds the query that finds out why a wait has failed.
const finalQueryTimeout = 3 * time.Second

// waitFor bounds a wait. Both an interrupt and the bound leave the machine as it is, and say so.
func (d *deps) waitFor(ctx context.Context, bound time.Duration, c *client.Client, m api.Machine,
	g goal) (api.Machine, error) {
	waiting, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	got, err := g.wait(waiting, c, m.ID)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		query, done := context.WithTimeout(ctx, finalQueryTimeout)
		defer done()
		now, queryErr := c.Machine(query, m.ID)
		if queryErr != nil {
			return got, queryErr
		}
		return now, &api.Error{Code: string(errs.Unavailable),
			Message: fmt.Sprintf("machine %s (%s) is not %s after %s; it goes on by itself", m.Name,
				m.ID, g.name, bound),
			Cause:  whatItWaitsFor(now),
			Remedy: "see: sluice machine status " + m.ID + " and: sluice machine logs " + m.ID}
	}
	if errors.Is(err, context.Canceled) {
		fmt.Fprintf(d.stderr, "not waiting any more for machine %s (%s); it goes on by itself\n",
			m.Name, m.ID)
	}
	return got, err
}

// whatItWaitsFor names a machine's state and every service that isn't ready, with its last error.
func whatItWaitsFor(m api.Machine) string {
	parts := []string{"it is " + stateOf(m)}
	if m.Worker != "" {
		parts[0] += " on " + m.Worker
	}
	for _, s := range m.Services {
		if s.State == "ready" {
			continue
		}
		part := "service " + s.Name + " is " + s.State
		if s.Error != "" {
			part += ": " + s.Error
		}
		if s.Restarts > 0 {
			part += fmt.Sprintf(" (%d restarts)", s.Restarts)
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "; ")
}
