package control_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// hasStep says whether a move has ever reached a step.
func hasStep(mv fleet.Move, s fleet.Step) bool {
	return slices.ContainsFunc(mv.Steps, func(r fleet.StepRecord) bool { return r.Step == s })
}

// slowToGiveUp gives targets so long to have a VM that a test sees what happens before.
func slowToGiveUp(t *testing.T) *fixture {
	f := newFixture(t)
	f.policy.StartTimeout = time.Minute
	f.serve()
	f.worker("w1")
	f.create("a", "net")
	return f
}

func TestTheSourceIsNotStoppedBeforeTheTargetHasAVM(t *testing.T) {
	f := slowToGiveUp(t)
	w2 := f.worker("w2")
	w2.set(func() { w2.boots = true })
	mv, err := f.c.Migrate(t.Context(), "a", "w2")
	if err != nil {
		t.Fatal(err)
	}
	f.eventually("the move says what it waits for", func() bool {
		mv, err = f.c.Move(t.Context(), mv.Move.ID)
		return err == nil && mv.Move.Blocker != nil
	})
	if b := mv.Move.Blocker; b.Code != "target-not-ready" || b.Object != "worker/w2" ||
		b.Remedy == "" || mv.Move.Step != fleet.StepLocked {
		t.Fatalf("step %s, blocker %+v", mv.Move.Step, b)
	}
	if v := f.machine("a"); v.Machine.State != fleet.MachineStarted ||
		v.Machine.Placement.Worker != "w1" {
		t.Fatalf("while the target boots: %+v", v.Machine)
	}
	w2.set(func() { w2.boots = false })
	f.eventually("moved", func() bool {
		mv, err = f.c.Move(t.Context(), mv.Move.ID)
		return err == nil && mv.Move.Step == fleet.StepDone
	})
	if mv.Move.To != "w2" || mv.Move.Blocker != nil || !hasStep(mv.Move, fleet.StepStopping) {
		t.Fatalf("%+v", mv.Move)
	}
}

func TestAMoveThatWaitsForAVMCanBeCancelled(t *testing.T) {
	f := slowToGiveUp(t)
	w2 := f.worker("w2")
	w2.set(func() { w2.boots = true })
	dv, err := f.c.StartDrain(t.Context(), []fleet.WorkerID{"w1"}, "test")
	if err != nil {
		t.Fatal(err)
	}
	f.eventually("the drain says what it waits for", func() bool {
		dv, err = f.c.Drain(t.Context(), dv.Drain.ID)
		return err == nil && len(dv.Drain.Blockers) == 1 &&
			dv.Drain.Blockers[0].Code == "target-not-ready"
	})
	if dv, err = f.c.CancelDrain(t.Context(), dv.Drain.ID); err != nil {
		t.Fatal(err)
	}
	f.eventually("cancelled", func() bool {
		dv, err = f.c.Drain(t.Context(), dv.Drain.ID)
		return err == nil && dv.Drain.State == fleet.DrainCancelled
	})
	if mv := dv.Moves[0].Move; mv.Step != fleet.StepUndone || hasStep(mv, fleet.StepStopping) ||
		mv.Error != "" {
		t.Fatalf("%+v", mv)
	}
}

func TestATargetThatHasNoVMInTimeIsLeftForAnother(t *testing.T) {
	f := newFixture(t, "w1") // gives a target up after 2 s
	f.create("a", "net")
	w2 := f.worker("w2")
	w2.set(func() { w2.boots = true })
	f.worker("w3")
	mv, err := f.c.Migrate(t.Context(), "a", "")
	if err != nil || mv.Move.To != "w2" {
		t.Fatalf("%+v, %v", mv, err)
	}
	f.eventually("moved", func() bool {
		mv, err = f.c.Move(t.Context(), mv.Move.ID)
		return err == nil && mv.Move.Step == fleet.StepDone
	})
	if mv.Move.To != "w3" || !slices.Equal(mv.Move.Refused, []fleet.WorkerID{"w2"}) ||
		mv.Move.Attempt != 1 {
		t.Fatalf("%+v", mv.Move)
	}
	if w, err := f.c.Worker(t.Context(), "w2"); err != nil || len(w.Allocation.Holders) != 0 {
		t.Fatalf("w2 still holds %+v, %v", w.Allocation, err)
	}
}

func TestWithoutATargetThatBootsTheMachineGoesOn(t *testing.T) {
	f := newFixture(t, "w1")
	m := f.create("a", "net").Machine
	w2 := f.worker("w2")
	w2.set(func() { w2.bootless = "the kernel hangs" })
	dv, err := f.c.StartDrain(t.Context(), []fleet.WorkerID{"w1"}, "test")
	if err != nil {
		t.Fatal(err)
	}
	f.eventually("blocked", func() bool {
		dv, err = f.c.Drain(t.Context(), dv.Drain.ID)
		return err == nil && dv.Drain.State == fleet.DrainBlocked
	})
	if b := dv.Drain.Blockers[0]; b.Object != "machine/"+string(m.ID) ||
		!strings.Contains(b.Detail, "still runs on w1") ||
		!strings.Contains(b.Detail, "the kernel hangs") {
		t.Fatalf("blocker %+v", b)
	}
	for _, mv := range dv.Moves {
		if mv.Move.Step != fleet.StepUndone || hasStep(mv.Move, fleet.StepStopping) {
			t.Fatalf("%+v", mv.Move)
		}
	}
	if got := f.machine("a").Machine; got.State != fleet.MachineStarted ||
		got.Placement.Generation != m.Placement.Generation {
		t.Fatalf("machine %+v", got)
	}
}
