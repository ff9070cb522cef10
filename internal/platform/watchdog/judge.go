// Package watchdog tells a process of the platform that is stuck from one that is slow, or that
// waits for a store.
//
// It looks from outside: at whether the process answers, at what the kernel counts of its block
// device if it serves one, and at the threads. A process that is stuck in the kernel can say
// nothing of itself.
package watchdog

import (
	"fmt"
	"time"

	"github.com/sluice-platform/sluice/internal/x/patience"
)

const (
	// Interval is how often to look.
	Interval = 2 * time.Second
	// silentStuck is for how long a process doesn't answer that is found to be stuck, if one of its
	// threads has not run for as long. Of this time and the next, what the process has waited for a
	// processor counts less: to a tenth.
	silentStuck = 10 * time.Second
	// silent is the same if all seems to be well with its threads.
	silent = time.Minute
	// idle is for how long nothing is done of what the device was asked for, when nothing at the
	// store explains it.
	idle = 30 * time.Second
	// missed is a gap between looks after which nothing can be said: this process itself did not
	// run.
	missed = 3 * Interval
)

// Sample is what was observed at one time.
type Sample struct {
	At time.Time
	// Answered: the process answered since the last look. What follows up to Waits is known only
	// then.
	Answered bool
	Store    uint64 // grows with all that the store does for the disk
	Waits    bool   // the store is known to have stalled
	Device   Device
	// Stuck are threads that have not run since the last look and could not; asked for only if
	// there was no answer.
	Stuck []Thread
	// Starved is how much of the time since then the process waited for a processor; as Stuck.
	Starved float64
}

// Judge keeps what it has seen so far. The zero value has seen nothing.
type Judge struct {
	last    Sample
	silence time.Time     // since when there is no answer; zero: there is one
	silent  time.Duration // of that, what counts
	isStuck bool          // some thread is, within the silence
	stuck   time.Duration // for how long; what counts of it
	// since when nothing is done of what the device was asked for; zero: it is
	quiet time.Time
}

// Add takes in a sample, and returns why the process counts as stuck, "" as long as it doesn't.
func (j *Judge) Add(s Sample) string {
	before := j.last
	j.last = s
	if before.At.IsZero() || s.At.Sub(before.At) > missed {
		j.hears()
		j.quiet = time.Time{}
		return ""
	}
	if s.Answered {
		return j.answered(before, s)
	}
	j.last.Store, j.last.Waits = before.Store, before.Waits
	if j.silence.IsZero() {
		j.silence = before.At
	}
	counts := time.Duration(float64(s.At.Sub(before.At)) * patience.Rate(s.Starved))
	j.silent += counts
	switch {
	case len(s.Stuck) == 0:
		j.isStuck = false
	case !j.isStuck:
		j.isStuck, j.stuck = true, 0
	default:
		j.stuck += counts
	}
	gone := s.At.Sub(j.silence).Round(time.Second)
	switch {
	case j.isStuck && j.stuck >= silentStuck:
		return fmt.Sprintf("it has not answered for %s, and %s", gone, describe(s.Stuck))
	case j.silent >= silent:
		return fmt.Sprintf("it has not answered for %s", gone)
	}
	return ""
}

// hears ends a silence.
func (j *Judge) hears() { j.silence, j.silent, j.isStuck = time.Time{}, 0, false }

// answered judges by the device: what was asked of it must be done, unless the store explains why
// not.
func (j *Judge) answered(before, s Sample) string {
	j.hears()
	if s.Device.InFlight == 0 || s.Device.Done != before.Device.Done ||
		s.Store != before.Store || s.Waits {
		j.quiet = time.Time{}
		return ""
	}
	if j.quiet.IsZero() {
		j.quiet = before.At
	}
	if quiet := s.At.Sub(j.quiet); quiet >= idle {
		return fmt.Sprintf(
			"its block device has %d requests under way of which none was done for %s, though the store answers",
			s.Device.InFlight, quiet.Round(time.Second))
	}
	return ""
}
