package metrics_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sluice-platform/sluice/internal/control/metrics"
	"github.com/sluice-platform/sluice/internal/fleet"
)

// still is a fleet that stands still.
type still struct {
	machines []fleet.MachineView
	workers  []fleet.WorkerView
	drains   []fleet.DrainView
	server   fleet.ServerView
}

func (s *still) Machines(context.Context, fleet.MachineFilter) ([]fleet.MachineView, error) {
	return s.machines, nil
}
func (s *still) Workers(context.Context) ([]fleet.WorkerView, error) { return s.workers, nil }
func (s *still) Drains(context.Context) ([]fleet.DrainView, error)   { return s.drains, nil }
func (s *still) Server(context.Context) fleet.ServerView             { return s.server }

func compare(t *testing.T, reg prometheus.Gatherer, name string, want ...string) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, f := range families {
		if f.GetName() == name {
			text = fmt.Sprintf("# HELP %s %s\n# TYPE %s %s\n", name, f.GetHelp(), name,
				strings.ToLower(f.GetType().String()))
		}
	}
	text += strings.Join(want, "\n") + "\n"
	if err := testutil.GatherAndCompare(reg, strings.NewReader(text), name); err != nil {
		t.Error(err)
	}
}

func TestFleetIsCounted(t *testing.T) {
	healthy := &fleet.VMReport{Phase: fleet.PhaseHealthy}
	s := &still{
		server: fleet.ServerView{Brake: "2 of 3 workers are down"},
		machines: []fleet.MachineView{
			{Machine: fleet.Machine{State: fleet.MachineStarted}, Report: healthy},
			{Machine: fleet.Machine{State: fleet.MachineStarted}, Report: healthy},
			{Machine: fleet.Machine{State: fleet.MachineStarted},
				Report: &fleet.VMReport{Phase: fleet.PhaseRunning}},
			{Machine: fleet.Machine{State: fleet.MachineMoving},
				Move: &fleet.Move{Step: fleet.StepCommitted,
					StartedAt: time.Now().Add(-time.Hour),
					Blocker:   &fleet.Blocker{Code: "start-slow"}}},
		},
		drains: []fleet.DrainView{
			{Drain: fleet.Drain{State: fleet.DrainDone, Blockers: []fleet.Blocker{{Code: "old"}}}},
			{Drain: fleet.Drain{State: fleet.DrainBlocked,
				Blockers: []fleet.Blocker{{Code: "no-capacity"},
					{Code: "no-capacity"}}}},
		},
	}
	for i := range metrics.MaxWorkers + 3 {
		s.workers = append(s.workers, fleet.WorkerView{Liveness: "alive", State: fleet.WorkerReady,
			Worker: fleet.Worker{ID: fleet.WorkerID(fmt.Sprintf("w%04d", i))}})
	}
	last := &s.workers[len(s.workers)-1]
	last.Liveness, last.State = "down", fleet.WorkerDraining
	reg := prometheus.NewPedanticRegistry()
	if err := metrics.Watch(reg, s); err != nil {
		t.Fatal(err)
	}
	compare(t, reg, "sluice_brake_on", "sluice_brake_on 1")
	compare(t, reg, "sluice_machines", `sluice_machines{health="healthy",state="started"} 2`,
		`sluice_machines{health="unhealthy",state="started"} 1`,
		`sluice_machines{health="unknown",state="moving"} 1`)
	compare(t, reg, "sluice_workers", `sluice_workers{liveness="alive",state="ready"} 502`,
		`sluice_workers{liveness="down",state="draining"} 1`)
	compare(t, reg, "sluice_blockers", `sluice_blockers{code="no-capacity",of="drain"} 2`,
		`sluice_blockers{code="start-slow",of="move"} 1`)
	compare(t, reg, "sluice_workers_left_out", "sluice_workers_left_out 3")
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	down := false
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == "sluice_worker_alive" && m.Label[0].GetValue() == "w0502" {
				down = m.Gauge.GetValue() == 0
			}
			if f.GetName() == "sluice_move_oldest_seconds" && m.Gauge.GetValue() < 3600 {
				t.Errorf("the oldest move is %v s old", m.Gauge.GetValue())
			}
		}
	}
	if !down {
		t.Error("the worker that is down was left out")
	}
}

func TestMovesAreCounted(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	m, at := metrics.NewMoves(reg), time.Now()
	m.Ended(fleet.Move{Reason: "drain", Step: fleet.StepDone, PauseMS: 250, StartedAt: at,
		FinishedAt: at.Add(3 * time.Second),
		Steps: []fleet.StepRecord{{Step: fleet.StepPlanned, At: at},
			{Step: fleet.StepReserved, At: at},
			{Step: fleet.StepDone, At: at.Add(3 * time.Second)}}})
	m.Ended(fleet.Move{Reason: "migrate", Step: fleet.StepUndone, StartedAt: at, FinishedAt: at})
	m.Ended(fleet.Move{Reason: "failover", Step: fleet.StepDone, Error: "starts nowhere",
		StartedAt: at, FinishedAt: at})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, x := range f.Metric {
			key := f.GetName()
			for _, l := range x.Label {
				key += " " + l.GetValue()
			}
			if h := x.Histogram; h != nil && h.GetSampleCount() > 0 {
				got[key] = h.GetSampleSum()
			} else if x.Counter.GetValue() > 0 {
				got[key] = x.Counter.GetValue()
			}
		}
	}
	want := map[string]float64{
		"sluice_moves_total done drain": 1, "sluice_moves_total undone migrate": 1,
		"sluice_moves_total failed failover": 1,
		"sluice_move_pause_seconds":          0.25, "sluice_move_step_duration_seconds reserved": 0,
		"sluice_move_step_duration_seconds done": 3,
		"sluice_move_duration_seconds done":      3, "sluice_move_duration_seconds undone": 0,
		"sluice_move_duration_seconds failed": 0,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("\n%v, want\n%v", got, want)
	}
}
