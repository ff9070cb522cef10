package guestapi

import "time"

// Steps that a worker measures, and that contain others. A platform may tell of more.
const (
	StepPrepare   = "disk prepare"    // the disk's map is read ahead
	StepBringUp   = "bring up"        // from a bind until the services are started
	StepAttach    = "attach"          // blockd attaches the disk, and shows it as a block device
	StepConnect   = "connect"         // the container gets its address
	StepMount     = "mount"           // of the disk's file system
	StepGrow      = "grow"            // of the file system to the disk's size
	StepContainer = "enter container" // the machine's root, name and limits are set
	StepServices  = "services"        // until each service is started
	StepChecks    = "checks"          // from then on until each service is ready
	StepRelease   = "release"         // from the wish for a clean end until the disk is closed
	StepStop      = "stop services"
	StepKill      = "kill container"
	StepUnmount   = "unmount"
	StepClose     = "close disk"
)

// Step is one timed part of a prepare, a bind or a release.
type Step struct {
	Name string        `json:"name"`
	Took time.Duration `json:"took_ns"`
	// Of is the name of the step that it is a part of; "": of none.
	Of string `json:"of,omitempty"`
	By string `json:"by,omitempty"` // the process that did it; "": platformd
	// Ago is for how long it had ended when it was told; 0: that isn't known. So nobody's clock has
	// to agree with the VM's.
	Ago time.Duration `json:"ago_ns,omitempty"`
	// Ended is when it ended, by the clock of the process that did it. It is never told.
	Ended time.Time `json:"-"`
}

// TellSteps returns steps as they are told at a time.
func TellSteps(steps []Step, now time.Time) []Step {
	told := make([]Step, len(steps))
	for i, s := range steps {
		if !s.Ended.IsZero() {
			s.Ago = max(now.Sub(s.Ended), 1)
		}
		told[i] = s
	}
	return told
}

// HearSteps returns steps that were told at a time as the hearer's own.
func HearSteps(told []Step, now time.Time) []Step {
	steps := make([]Step, len(told))
	for i, s := range told {
		if s.Ago > 0 {
			s.Ended = now.Add(-s.Ago)
		}
		steps[i] = s
	}
	return steps
}
