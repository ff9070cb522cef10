package fleet

import (
	"slices"
	"testing"
)

// TestStepTable: every step is in the table, a move is in one stage at a time, and what has ended
// holds nothing.
func TestStepTable(t *testing.T) {
	if got := len(stepTable); got != len(Steps()) {
		t.Errorf("the table has %d steps, the order %d", got, len(Steps()))
	}
	for _, s := range Steps() {
		if _, ok := stepTable[s]; !ok {
			t.Errorf("%s is not in the table", s)
		}
		stages := []bool{s.SourceRuns(), s.SourceToldToStop(), s.TargetOwns(), !s.Counts()}
		n := 0
		for _, in := range stages {
			if in {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s is in %d stages: source runs, source told, target owns, over = %v", s, n,
				stages)
		}
		if s.Final() && s.Counts() {
			t.Errorf("%s is final, and counts", s)
		}
		if s.TargetOwns() && !s.PastCommit() || s.SourceToldToStop() && !s.StandsStill() {
			t.Errorf("%s is the target's before the commit, or told to stop and running", s)
		}
	}
	if unknown := Step("later"); unknown.Counts() || unknown.Before(StepDone) ||
		StepPlanned.Before(unknown) {
		t.Error("an unknown step has a place")
	}
	if !StepPlanned.Before(StepDone) || StepDone.Before(StepPlanned) ||
		StepUndoing.Before(StepUndone) {
		t.Error("steps are out of order")
	}
}

// TestPhaseOrder: a VM goes through the phases once, and one that a newer release reports comes
// before all.
func TestPhaseOrder(t *testing.T) {
	var needVM, ends []Phase
	for i, p := range phaseOrder {
		if i > 0 && !phaseOrder[i-1].Before(p) {
			t.Errorf("%s doesn't come before %s", phaseOrder[i-1], p)
		}
		if p.NeedsVM() {
			needVM = append(needVM, p)
		}
		if p.Final() {
			ends = append(ends, p)
		}
	}
	want := []Phase{PhaseAttaching, PhaseStarting, PhaseRunning, PhaseHealthy, PhaseStopping}
	if !slices.Equal(needVM, want) {
		t.Errorf("phases with a VM: %v, want %v", needVM, want)
	}
	if !slices.Equal(ends, []Phase{PhaseReleased, PhaseFailed, PhaseFenced}) {
		t.Errorf("ends: %v", ends)
	}
	if newer := Phase("dreaming"); !newer.Before(PhaseEmpty) || newer.NeedsVM() || newer.Final() {
		t.Error("an unknown phase has a place")
	}
}
