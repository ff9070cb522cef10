package fleet

import (
	"slices"
	"time"
)

// Step is how far a move is.
type Step string

// Steps of a move, in order. StepCommitted is the point of no return: before it a move is undone in
// place; after it, it is finished or tried again on another target.
const (
	StepPlanned  Step = "planned"
	StepReserved Step = "reserved" // capacity held on the target
	StepLocked   Step = "locked"   // the network's lock held
	StepPrepared Step = "prepared" // a VM on the target is warm for it
	StepStopping Step = "stopping" // the source was told to release it
	// the source's disk is closed (or the source is down: failover)
	StepReleased  Step = "released"
	StepCommitted Step = "committed" // placement and generation changed in one transaction
	StepAttached  Step = "attached"  // the target has the disk
	StepStarted   Step = "started"   // inner container and services are up
	StepHealthy   Step = "healthy"   // checks pass
	StepUnlocked  Step = "unlocked"  // the network's lock given back
	StepDone      Step = "done"      // source cleaned
	// The way back leaves the order: from any step before StepCommitted, or from a target that
	// fails.
	StepUndoing Step = "undoing" // told to the source already: it is being given back
	StepUndone  Step = "undone"  // wholly on the source again
)

// stepTraits is a set of what holds while a move is in a step.
type stepTraits uint

const (
	sourceRuns  stepTraits = 1 << iota // the source was told nothing yet
	sourceTold                         // the source was told to stop, and nothing is committed
	targetWarm                         // the target keeps a VM warm
	standsStill                        // the machine runs nowhere
	targetOwns                         // the machine is the target's, and comes up there
	pastCommit                         // the placement has changed
	counts                             // it owns its machine, and counts against the limits
	final                              // no step comes after
)

// stepTable says what holds in each step. A new step is one line here; nothing else lists steps.
var stepTable = map[Step]stepTraits{
	StepPlanned:   sourceRuns | counts,
	StepReserved:  sourceRuns | counts,
	StepLocked:    sourceRuns | targetWarm | counts,
	StepPrepared:  sourceRuns | targetWarm | counts,
	StepStopping:  sourceTold | targetWarm | standsStill | counts,
	StepReleased:  sourceTold | targetWarm | standsStill | counts,
	StepCommitted: targetOwns | standsStill | pastCommit | counts,
	StepAttached:  targetOwns | standsStill | pastCommit | counts,
	StepStarted:   targetOwns | standsStill | pastCommit | counts,
	StepHealthy:   targetOwns | pastCommit | counts,
	StepUnlocked:  pastCommit,
	StepDone:      pastCommit | final,
	StepUndoing:   sourceTold | standsStill | counts,
	StepUndone:    final,
}

// stepOrder is the way of a move that is never undone.
var stepOrder = []Step{
	StepPlanned, StepReserved, StepLocked, StepPrepared, StepStopping, StepReleased,
	StepCommitted, StepAttached, StepStarted, StepHealthy, StepUnlocked, StepDone,
}

// Steps returns every step: those of a move that succeeds, in order, then the way back.
func Steps() []Step { return append(slices.Clone(stepOrder), StepUndoing, StepUndone) }

func (s Step) has(t stepTraits) bool { return stepTable[s]&t != 0 }

// Final reports whether no step comes after s.
func (s Step) Final() bool { return s.has(final) }

// SourceRuns reports whether the source was told nothing yet: an undo takes back a reservation.
func (s Step) SourceRuns() bool { return s.has(sourceRuns) }

// SourceToldToStop reports whether the source was told to release the machine, and nothing is
// committed yet.
func (s Step) SourceToldToStop() bool { return s.has(sourceTold) }

// TargetKeepsWarm reports whether the target keeps a VM ready for the machine.
func (s Step) TargetKeepsWarm() bool { return s.has(targetWarm) }

// StandsStill reports whether the move has stopped the machine and not yet started it again.
func (s Step) StandsStill() bool { return s.has(standsStill) }

// TargetOwns reports whether the machine is the target's and the move waits for it to come up
// there.
func (s Step) TargetOwns() bool { return s.has(targetOwns) }

// PastCommit reports whether the placement has changed. It says nothing of an undone move, which
// may have changed it twice.
func (s Step) PastCommit() bool { return s.has(pastCommit) }

// Counts reports whether the move owns its machine and counts against the limits. After
// StepUnlocked only the source's clean-up is left, which doesn't.
func (s Step) Counts() bool { return s.has(counts) }

// BroughtAway reports whether the machine has left the source for good.
func (s Step) BroughtAway() bool { return s.PastCommit() && !s.Counts() }

// Before reports whether s comes before o. Undoing and undone are in no order with anything.
func (s Step) Before(o Step) bool {
	i, j := slices.Index(stepOrder, s), slices.Index(stepOrder, o)
	return i >= 0 && j >= 0 && i < j
}

// Reached returns when the move last reached a step; the zero time if it never did.
func (m Move) Reached(s Step) time.Time { return m.record(s).At }

// NoteOf returns what was noted when the move last reached a step.
func (m Move) NoteOf(s Step) string { return m.record(s).Note }

func (m Move) record(s Step) StepRecord {
	for _, r := range slices.Backward(m.Steps) {
		if r.Step == s {
			return r
		}
	}
	return StepRecord{}
}
