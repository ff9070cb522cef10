package control_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestCancelAfterTheStopPutsBack(t *testing.T) {
	f := newFixture(t)
	w1 := f.worker("w1")
	m := f.create("a", "net").Machine
	f.worker("w2")
	w1.set(func() { w1.holds = true })
	dv, err := f.c.StartDrain(t.Context(), []fleet.WorkerID{"w1"}, "test")
	if err != nil {
		t.Fatal(err)
	}
	f.eventually("the source is told to stop", func() bool {
		dv, err = f.c.Drain(t.Context(), dv.Drain.ID)
		return err == nil && len(dv.Moves) == 1 && dv.Moves[0].Move.Step == fleet.StepStopping
	})
	if v := f.machine("a"); v.Machine.State != fleet.MachineMoving {
		t.Errorf("state %s while it moves", v.Machine.State)
	}
	if _, _, err := f.c.WorkerOf(t.Context(), "a"); !errs.Is(err, errs.Unavailable) {
		t.Errorf("calls for a machine that is being moved: %v", err)
	}
	if _, err := f.c.CancelDrain(t.Context(), dv.Drain.ID); err != nil {
		t.Fatal(err)
	}
	w1.set(func() { w1.holds = false })
	f.eventually("the drain is cancelled", func() bool {
		dv, err = f.c.Drain(t.Context(), dv.Drain.ID)
		return err == nil && dv.Drain.State == fleet.DrainCancelled
	})
	got := f.machine("a").Machine
	if mv := dv.Moves[0].Move; mv.Step != fleet.StepUndone || mv.Error != "" ||
		got.Placement.Worker != "w1" || got.Placement.Generation <= m.Placement.Generation ||
		got.State != fleet.MachineStarted || got.Owner != "" {
		t.Fatalf("move %+v, machine %+v", mv, got)
	}
	w, err := f.c.Worker(t.Context(), "w1")
	if err != nil || w.State != fleet.WorkerReady {
		t.Fatalf("worker %+v, %v", w, err)
	}
	if w, err = f.c.Worker(t.Context(), "w2"); err != nil || len(w.Allocation.Holders) != 0 {
		t.Fatalf("the target still holds %+v, %v", w.Allocation, err)
	}
}

func TestATargetThatFailsIsLeftForAnother(t *testing.T) {
	f := newFixture(t, "w1")
	m := f.create("a", "net").Machine
	w2 := f.worker("w2")
	f.worker("w3")
	w2.set(func() { w2.broken[m.ID] = true })
	mv, err := f.c.Migrate(t.Context(), "a", "")
	if err != nil || mv.Move.To != "w2" {
		t.Fatalf("%+v, %v", mv, err)
	}
	f.eventually("moved", func() bool {
		mv, err = f.c.Move(t.Context(), mv.Move.ID)
		return err == nil && mv.Move.Step == fleet.StepDone
	})
	if mv.Move.To != "w3" || mv.Move.Attempt != 2 ||
		f.machine("a").Machine.Placement.Worker != "w3" {
		t.Fatalf("%+v", mv.Move)
	}
}

func TestAMachineThatStartsNowhereElseComesBackAndIsNamed(t *testing.T) {
	f := newFixture(t, "w1")
	m := f.create("a", "net").Machine
	w2 := f.worker("w2")
	w2.set(func() { w2.broken[m.ID] = true })
	dv, err := f.c.StartDrain(t.Context(), []fleet.WorkerID{"w1"}, "test")
	if err != nil {
		t.Fatal(err)
	}
	f.eventually("blocked", func() bool {
		dv, err = f.c.Drain(t.Context(), dv.Drain.ID)
		return err == nil && dv.Drain.State == fleet.DrainBlocked
	})
	b := dv.Drain.Blockers[0]
	if b.Code != "start-failed" || b.Object != "machine/"+string(m.ID) || b.Remedy == "" ||
		b.Since.IsZero() || !strings.Contains(b.Detail, "no such command") {
		t.Fatalf("blocker %+v", b)
	}
	if got := f.machine("a").Machine; got.State != fleet.MachineStarted ||
		got.Placement.Worker != "w1" {
		t.Fatalf("machine %+v", got)
	}
	v := f.create("b", "net") // the network isn't blocked by it
	if v.Machine.Placement.Worker != "w2" {
		t.Fatalf("placed on %s", v.Machine.Placement.Worker)
	}
}

func TestNoTargetKeepsTheMachineRunning(t *testing.T) {
	f := newFixture(t, "w1")
	f.create("a", "net")
	dv, err := f.c.StartDrain(t.Context(), []fleet.WorkerID{"w1"}, "test")
	if err != nil {
		t.Fatal(err)
	}
	f.eventually("blocked", func() bool {
		dv, err = f.c.Drain(t.Context(), dv.Drain.ID)
		return err == nil && dv.Drain.State == fleet.DrainBlocked
	})
	if b := dv.Drain.Blockers[0]; b.Code != "no-capacity" || b.Remedy == "" {
		t.Fatalf("blocker %+v", b)
	}
	if m := f.machine("a").Machine; m.State != fleet.MachineStarted || m.Placement.Generation != 1 {
		t.Fatalf("machine %+v", m)
	}
	f.worker("w2") // what the blocker asked for
	f.eventually("drained", func() bool {
		dv, err = f.c.Drain(t.Context(), dv.Drain.ID)
		return err == nil && dv.Drain.State == fleet.DrainDone
	})
}

func TestFailoverAndTheZombieThatReturns(t *testing.T) {
	f := newFixture(t)
	w1 := f.worker("w1")
	m := f.create("a", "net").Machine
	f.worker("w2")
	f.worker("w3")
	w1.set(func() { w1.silent = true })
	f.eventually("failed over", func() bool {
		got := f.machine("a").Machine
		return got.Placement.Worker != "w1" && got.State == fleet.MachineStarted && got.Owner == ""
	})
	events, err := f.c.MachineEvents(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	proof := ""
	for _, e := range events {
		if e.Info["migrated"] == "true" {
			proof = e.Info["proof"]
		}
	}
	if proof != string(fleet.ProofStorage) {
		t.Errorf("events %+v", events)
	}
	w1.set(func() { w1.silent = false })
	f.eventually("the zombie is discarded", func() bool {
		w1.mu.Lock()
		defer w1.mu.Unlock()
		_, there := w1.vms[m.ID]
		return !there
	})
	if got := f.machine("a").Machine; got.Placement.Worker == "w1" ||
		got.State != fleet.MachineStarted {
		t.Fatalf("machine %+v", got)
	}
}

func TestAnotherServerGoesOn(t *testing.T) {
	f := newFixture(t)
	w1 := f.worker("w1")
	f.create("a", "net")
	f.worker("w2")
	w1.set(func() { w1.holds = true })
	dv, err := f.c.StartDrain(t.Context(), []fleet.WorkerID{"w1"}, "test")
	if err != nil {
		t.Fatal(err)
	}
	f.eventually("the source is told to stop", func() bool {
		v, err := f.c.Drain(t.Context(), dv.Drain.ID)
		return err == nil && len(v.Moves) == 1 && v.Moves[0].Move.Step == fleet.StepStopping
	})
	f.serve()
	last := ""
	defer func() { t.Log(last) }()
	w1.set(func() { w1.holds = false })
	f.eventually("drained", func() bool {
		v, err := f.c.Drain(t.Context(), dv.Drain.ID)
		last = fmt.Sprintf("%+v %v %+v", v, err, f.machine("a"))
		return err == nil && v.Drain.State == fleet.DrainDone && v.Drain.Moved == 1
	})
}

func TestReferencesAreExact(t *testing.T) {
	f := newFixture(t, "w1", "w2")
	f.create("web", "net")
	other := request("web", "net")
	other.App = "other"
	if _, err := f.c.CreateMachine(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	for ref, kind := range map[string]errs.Kind{"web": errs.Conflict, "we": errs.NotFound,
		"app/we": errs.NotFound, "app/web": "", "other/web": "", "01": errs.NotFound} {
		if _, err := f.c.Machine(t.Context(), ref); errs.KindOf(err) != kind {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if _, err := f.c.Cordon(t.Context(), "w", ""); !errs.Is(err, errs.NotFound) ||
		!strings.Contains(errs.RemedyOf(err), "w1, w2") {
		t.Errorf("cordon of an unknown worker: %v (%s)", err, errs.RemedyOf(err))
	}
}

func TestJoiningTwice(t *testing.T) {
	f := newFixture(t)
	w1 := f.worker("w1")
	before, err := f.c.Worker(t.Context(), "w1")
	if err != nil {
		t.Fatal(err)
	}
	if err := w1.join(before.Worker.Address); err != nil {
		t.Fatalf("again from the same address: %v", err)
	}
	elsewhere := netip.MustParseAddr("fd00::99")
	if err := w1.join(elsewhere); !errs.Is(err, errs.Conflict) {
		t.Fatalf("from another address while the first is alive: %v", err)
	}
	w1.set(func() { w1.silent = true })
	f.eventually("down", func() bool {
		v, err := f.c.Worker(t.Context(), "w1")
		return err == nil &&
			v.State == fleet.WorkerDown
	})
	if err := w1.join(elsewhere); err != nil {
		t.Fatalf("from another address once the first is down: %v", err)
	}
	after, err := f.c.Worker(t.Context(), "w1")
	if err != nil || after.Worker.Number != before.Worker.Number ||
		after.Worker.Address != elsewhere {
		t.Fatalf("%+v, %v", after, err)
	}
}

func TestPauseIsMeasuredAndShort(t *testing.T) {
	f := newFixture(t, "w1", "w2")
	f.create("a", "net")
	began := time.Now()
	mv, err := f.c.Migrate(t.Context(), "a", "")
	if err != nil {
		t.Fatal(err)
	}
	f.eventually("moved", func() bool {
		mv, err = f.c.Move(t.Context(), mv.Move.ID)
		return err == nil && mv.Move.Step == fleet.StepDone
	})
	if whole := float64(time.Since(began).Microseconds()) / 1000; mv.Move.PauseMS <= 0 ||
		mv.Move.PauseMS > whole {
		t.Errorf("pause of %.2f ms in a move of %.2f ms", mv.Move.PauseMS, whole)
	}
	t.Logf("the control plane's own share of a pause: %.2f ms", mv.Move.PauseMS)
}
