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
	// Interval is the interval between samples.
	Interval = 2 * time.Second
	// silentStuck is how long a process may answer nothing while one of its threads hasn't run.
	// After that it counts as stuck. Of this time and the next, time in which the process waited
	// for a processor counts less, down to a tenth.
	silentStuck = 10 * time.Second
	// silent is how long a process may answer nothing if its threads seem well.
	silent = time.Minute
	// idle is how long the device may complete no request, unless the store explains it.
	idle = 30 * time.Second
	// missed is a gap between samples that is too long to judge by: this process itself didn't
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
	// Stuck are threads that have not run since the last sample, and could not. They are read only
	// if the process hasn't answered.
	Stuck []Thread
	// Starved is the share of that time in which the process waited for a processor; read as Stuck
	// is.
	Starved float64
}

// Judge decides by successive samples whether a process is stuck. The zero value has had none.
type Judge struct {
	last    Sample
	silence time.Time     // since when the process hasn't answered; zero: it answers
	silent  time.Duration // of that, what counts
	isStuck bool          // some thread is, within the silence
	stuck   time.Duration // for how long; what counts of it
	// since when the device completes no request; zero: it does
	quiet time.Time
}

// Add adds a sample, and returns why the process counts as stuck; "": it doesn't.
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

// answered judges by the device: it must complete requests, unless the store explains why not.
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
