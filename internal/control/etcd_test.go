package control_test

import (
	"slices"
	"strconv"
	"testing"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/state/etcdstate"
)

// TestOnEtcd drains back and forth on the real state: transactions, watch and all. Workers answer
// at once, so that what is left of a pause is the control plane's own share: it is printed, and
// bounded generously.
func TestOnEtcd(t *testing.T) {
	e, err := etcdstate.Start(t.Context(), etcdstate.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	f := newFixtureOn(t, e.Store(), "w1", "w2")
	for i := range 4 {
		f.create("m"+strconv.Itoa(i), "net"+strconv.Itoa(i%2))
	}
	var pauses []float64
	for round := range 6 {
		victim := fleet.WorkerID([]string{"w1", "w2"}[round%2])
		dv, err := f.c.StartDrain(t.Context(), []fleet.WorkerID{victim}, "test")
		if err != nil {
			t.Fatal(err)
		}
		f.eventually("drained", func() bool {
			dv, err = f.c.Drain(t.Context(), dv.Drain.ID)
			return err == nil && dv.Drain.State == fleet.DrainDone
		})
		for _, mv := range dv.Moves {
			if mv.Move.Step != fleet.StepDone {
				t.Errorf("move %+v", mv.Move)
			}
			pauses = append(pauses, mv.Move.PauseMS)
		}
		if _, err := f.c.Uncordon(t.Context(), victim); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(pauses)
	half := pauses[len(pauses)/2]
	t.Logf("the control plane's share of a pause over %d moves: p50 %.1f ms, most %.1f ms",
		len(pauses), half, pauses[len(pauses)-1])
	if half > 500 {
		t.Errorf("a pause of %.1f ms without any work in it", half)
	}
}
