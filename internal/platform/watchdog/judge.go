// Package watchdog tells a disk's server that is stuck from one that is slow, or that waits for a store.
//
// It looks from outside: at whether the process answers, at what the kernel counts of the block device, and at the threads. A
// process that is stuck in the kernel can say nothing of itself.
package watchdog

import (
	"fmt"
	"time"
)

const (
	// Interval is how often to look.
	Interval = 2 * time.Second
	// silentStuck is for how long a process doesn't answer that is found to be stuck, if one of its threads has not run for
	// as long.
	silentStuck = 10 * time.Second
	// silent is the same if all seems to be well with its threads: it may only get little of the processor.
	silent = time.Minute
	// idle is for how long nothing is done of what the device was asked for, when nothing at the store explains it.
	idle = 30 * time.Second
	// missed is a gap between looks after which nothing can be said: this process itself did not run.
	missed = 3 * Interval
)

// Sample is one look.
type Sample struct {
	At time.Time
	// Answered: the process answered since the last look. What follows up to Waits is known only then.
	Answered bool
	Store    uint64 // grows with all that the store does for the disk
	Waits    bool   // the store is known to have stalled
	Device   Device
	// Stuck are threads that have not run since the last look and could not; asked for only if there was no answer.
	Stuck []Thread
}

// Judge keeps what it has seen so far. The zero value has seen nothing.
type Judge struct {
	last    Sample
	silence time.Time // since when there is no answer; zero: there is one
	stuck   time.Time // since when some thread is stuck, within the silence
	quiet   time.Time // since when nothing is done of what the device was asked for; zero: it is
}

// Look returns why the process counts as stuck, "" as long as it doesn't.
func (j *Judge) Look(s Sample) string {
	before := j.last
	j.last = s
	if before.At.IsZero() || s.At.Sub(before.At) > missed {
		j.silence, j.stuck, j.quiet = time.Time{}, time.Time{}, time.Time{}
		return ""
	}
	if s.Answered {
		return j.answered(before, s)
	}
	j.last.Store, j.last.Waits = before.Store, before.Waits
	if j.silence.IsZero() {
		j.silence = before.At
	}
	if len(s.Stuck) == 0 {
		j.stuck = time.Time{}
	} else if j.stuck.IsZero() {
		j.stuck = s.At
	}
	gone := s.At.Sub(j.silence)
	switch {
	case !j.stuck.IsZero() && s.At.Sub(j.stuck) >= silentStuck:
		return fmt.Sprintf("it has not answered for %s, and %s", gone.Round(time.Second), describe(s.Stuck))
	case gone >= silent:
		return fmt.Sprintf("it has not answered for %s", gone.Round(time.Second))
	}
	return ""
}

// answered judges by the device: what was asked of it must be done, unless the store explains why not.
func (j *Judge) answered(before, s Sample) string {
	j.silence, j.stuck = time.Time{}, time.Time{}
	if s.Device.InFlight == 0 || s.Device.Done != before.Device.Done || s.Store != before.Store || s.Waits {
		j.quiet = time.Time{}
		return ""
	}
	if j.quiet.IsZero() {
		j.quiet = before.At
	}
	if quiet := s.At.Sub(j.quiet); quiet >= idle {
		return fmt.Sprintf("its block device has %d requests under way of which none was done for %s, though the store answers",
			s.Device.InFlight, quiet.Round(time.Second))
	}
	return ""
}
