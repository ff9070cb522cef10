package plan

import (
	"fmt"
	"strings"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/patience"
)

// mostStretch bounds how much longer a worker may be silent because its host was under pressure
// when it was last heard of.
const mostStretch = 3

// Contact is when a worker was heard of. The zero Contact is a worker never heard of.
type Contact struct {
	Last time.Time
	// Since is the start of the present streak: no silence in it was as long as the policy's
	// WorkerSuspect.
	Since time.Time
	// Lost is set once the worker was found down, and cleared by a whole streak.
	Lost bool
	// Share is how much of the time work waited on its host, as it said last.
	Share float64
}

// stretch returns how long a silence has to be to mean what d says of a host without pressure.
func (c Contact) stretch(d time.Duration) time.Duration {
	return patience.Stretch(d, c.Share, mostStretch)
}

// Heard returns the contact after the worker was heard of at now.
func (c Contact) Heard(now time.Time, policy fleet.Policy) Contact {
	if c.Last.IsZero() || now.Sub(c.Last) >= c.stretch(policy.WorkerSuspect) {
		c.Since = now
	}
	if now.After(c.Last) {
		c.Last = now
	}
	return c
}

// Liveness is what silence means. Grace is the earliest time from which silence counts: the
// server's start. Nobody is down before a full WorkerDown after it. A worker that said that its
// host is under pressure may be silent for up to three times as long.
//
// A worker that was down comes back as suspect, and is alive again only after it has been heard of
// for a whole WorkerSuspect without a gap: one that flaps gets no machines.
func Liveness(c Contact, grace, now time.Time, policy fleet.Policy) Health {
	silentSince := c.Last
	if grace.After(silentSince) {
		silentSince = grace
	}
	if now.Sub(silentSince) >= c.stretch(policy.WorkerDown) {
		return Down
	}
	if c.Last.IsZero() || now.Sub(c.Last) >= c.stretch(policy.WorkerSuspect) {
		return Suspect
	}
	if c.Lost && now.Sub(c.Since) < policy.WorkerSuspect {
		return Suspect
	}
	return Alive
}

// Brake returns a sentence that says why nothing may be started automatically, or "". It acts when
// at least two workers, and more than BrakeFraction of all, are down: that many rarely die at once,
// and the usual cause is on our side. Workers that a drain has emptied, and those that
// are shut out, count on neither side: they may be switched off, or are meant to be silent.
func Brake(v View, policy fleet.Policy) string {
	var down []string
	total := 0
	for _, e := range v.order {
		if e.rec.Drained || v.Look.ShutOut(e.id) {
			continue
		}
		total++
		if v.Look.Health(e.id) == Down {
			down = append(down, string(e.id))
		}
	}
	if len(down) < 2 || float64(len(down)) <= policy.BrakeFraction*float64(total) {
		return ""
	}
	names := strings.Join(down[:min(len(down), mostTold)], ", ") // they are in order
	if more := len(down) - mostTold; more > 0 {
		names += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("%d of %d workers are down (%s), more than %.0f %%: automatic failover is "+
		"stopped; "+
		"check the network between server and workers, or drain the dead workers by hand",
		len(down), total, names, policy.BrakeFraction*100)
}
