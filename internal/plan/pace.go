package plan

import (
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// helpless is how many start timeouts a start may be stuck for on a host under pressure, where
// every other worker that would take it is under pressure, too: it would be as slow there, and
// begun anew.
const helpless = 3

// Pace is what a start that isn't done is judged as.
type Pace string

// Paces.
const (
	PaceFine  Pace = "fine"  // it has the time still
	PaceSlow  Pace = "slow"  // it takes long, and is waited for
	PaceStuck Pace = "stuck" // it is given up
)

// Start is how a machine's start on a worker goes.
type Start struct {
	On     Sight
	Waited time.Duration // since it began
	Stuck  time.Duration // since it came further, as far as that counts: see package patience
	// CalmElsewhere: a worker that isn't under pressure would take the machine. Only asked where
	// On's host is under pressure.
	CalmElsewhere bool
}

// Judge judges a start. A host under pressure is left for another one only where that helps: for
// one that isn't, or when the start has been stuck for very long.
func (s Start) Judge(policy fleet.Policy) Pace {
	limit := policy.StartTimeout
	switch {
	case s.Waited <= limit:
		return PaceFine
	case s.Stuck <= limit:
		return PaceSlow
	case s.On.Pressure.High() && s.Stuck <= helpless*limit && !s.CalmElsewhere:
		return PaceSlow
	}
	return PaceStuck
}

// Slow says why a start that takes long is waited for. It has no number in it that changes by
// itself: it is kept in a record.
func (s Start) Slow() string {
	why := string(s.On.Worker) + " is slow to bring it up, and it is waited for"
	if v := s.On.VM; v != nil {
		why += ": it is " + string(v.Phase) + failing(v)
	}
	if s.On.Pressure.High() {
		why += "; its host is under pressure"
	}
	return why
}

// failing says which service of a VM fails, after a comma; "" if none does.
func failing(v *fleet.VMReport) string {
	if v == nil || v.Failing() == "" {
		return ""
	}
	return ", " + v.Failing()
}
