package control_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// saturated is a host that can give nothing.
var saturated = fleet.Pressure{CPU: 0.95, Load: 40, Cores: 2}

// inVirtualTime runs a test on a clock of its own: how busy this host is makes no difference.
func inVirtualTime(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newFixture(t)) })
}

// begin asks for a machine whose starts on these workers go on and on.
func (f *fixture) begin(req fleet.CreateMachine, on ...*obedient) fleet.MachineID {
	f.t.Helper()
	for _, w := range on {
		w.mu.Lock()
		w.all = true
		w.mu.Unlock()
	}
	v, err := f.c.CreateMachine(f.t.Context(), req)
	if err != nil {
		f.t.Fatal(err)
	}
	return v.Machine.ID
}

// placed returns where a machine is, as worker@generation.
func (f *fixture) placed(id fleet.MachineID) (fleet.WorkerID, fleet.Generation) {
	f.t.Helper()
	m := f.machine(string(id)).Machine
	if m.Placement == nil {
		return "", m.Generation
	}
	return m.Placement.Worker, m.Placement.Generation
}

// leaves returns how long it takes until a machine is started anew, at most limit.
func (f *fixture) leaves(id fleet.MachineID, limit time.Duration) time.Duration {
	f.t.Helper()
	began := time.Now()
	for time.Since(began) < limit {
		if _, gen := f.placed(id); gen > 1 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

func TestAStartThatIsStuckIsGivenUpAsQuicklyAsItWas(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, f *fixture) {
		w1 := f.worker("w1")
		f.worker("w2")
		id := f.begin(request("a", "net"), w1)
		if took := f.leaves(id, time.Minute); took < 2*time.Second || took > 2500*time.Millisecond {
			t.Errorf("given up after %s with a start timeout of 2s", took)
		}
		f.eventually("it runs elsewhere", func() bool {
			return f.machine("a").Machine.State == fleet.MachineStarted
		})
		if on, _ := f.placed(id); on != "w2" {
			t.Errorf("it is on %s", on)
		}
	})
}

func TestAStartThatGetsFurtherIsNeverGivenUp(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, f *fixture) {
		w1 := f.worker("w1")
		f.worker("w2")
		w1.set(func() { w1.further = true })
		id := f.begin(request("a", "net"), w1)
		if took := f.leaves(id, 5*time.Minute); took < 5*time.Minute {
			t.Fatalf("given up after %s: %+v", took, f.machine("a").Machine)
		}
		m := f.machine("a").Machine
		if m.State != fleet.MachineStarting || !strings.Contains(m.Reason, "w1 is slow") {
			t.Errorf("it is %s, %q", m.State, m.Reason)
		}
		w1.set(func() { w1.all = false })
		f.eventually("it runs", func() bool {
			return f.machine("a").Machine.State == fleet.MachineStarted
		})
		if on, gen := f.placed(id); on != "w1" || gen != 1 || f.machine("a").Machine.Reason != "" {
			t.Errorf("it is on %s at generation %d: %q", on, gen, f.machine("a").Machine.Reason)
		}
	})
}

func TestPressureStretchesAStart(t *testing.T) {
	for _, c := range []struct {
		name           string
		w1, w2         *fleet.Pressure
		least, most    time.Duration
		named          bool
		wantsElsewhere bool
	}{
		{"the other worker has time", &saturated, nil, 20 * time.Second, 22 * time.Second, false,
			true},
		{"the other one is as bad", &saturated, &saturated, 60 * time.Second, 62 * time.Second,
			false, true},
		{"half of the time is lost", &fleet.Pressure{CPU: 0.45}, nil, 3500 * time.Millisecond,
			4500 * time.Millisecond, false, true},
		{"a worker that was named", nil, nil, 2 * time.Second, 2500 * time.Millisecond, true,
			false},
		{"a worker that was named, under pressure", &saturated, nil, 60 * time.Second,
			62 * time.Second, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T, f *fixture) {
				w1, w2 := f.worker("w1"), f.worker("w2")
				w1.set(func() { w1.pressure = c.w1 })
				w2.set(func() { w2.pressure = c.w2 })
				time.Sleep(time.Second) // both have reported
				req := request("a", "net")
				if c.named {
					req.Worker = "w1"
				}
				id := f.begin(req, w1)
				if took := f.leaves(id, 10*time.Minute); took < c.least || took > c.most {
					t.Errorf("given up after %s, want %s to %s", took, c.least, c.most)
				}
				if on, _ := f.placed(id); (on == "w2") != c.wantsElsewhere {
					t.Errorf("started anew on %s", on)
				}
			})
		})
	}
}

func TestANamedWorkerIsKeptUntilTheMachineIsUp(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, f *fixture) {
		w1 := f.worker("w1")
		f.worker("w2")
		req := request("a", "net")
		req.Worker = "w1"
		id := f.begin(req, w1)
		time.Sleep(30 * time.Second)
		on, gen := f.placed(id)
		if on != "w1" || gen < 3 {
			t.Fatalf("after ten start timeouts it is on %s at generation %d", on, gen)
		}
		w1.set(func() { w1.all = false })
		f.eventually("it runs", func() bool {
			return f.machine("a").Machine.State == fleet.MachineStarted
		})
		if m := f.machine("a").Machine; m.Placement.Worker != "w1" || m.Placement.Named {
			t.Errorf("it is up as %+v", m.Placement)
		}
		if _, err := f.c.StartDrain(t.Context(), []fleet.WorkerID{"w1"}, "test"); err != nil {
			t.Fatal(err)
		}
		f.eventually("it was moved", func() bool {
			m := f.machine("a").Machine
			return m.Placement.Worker == "w2" && m.Owner == ""
		})
	})
}

func TestANamedWorkerThatIsLostIsLeft(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, f *fixture) {
		w1 := f.worker("w1")
		f.worker("w2")
		req := request("a", "net")
		req.Worker = "w1"
		id := f.begin(req, w1)
		w1.set(func() { w1.silent = true })
		f.eventually("it runs elsewhere", func() bool {
			return f.machine("a").Machine.State == fleet.MachineStarted
		})
		if on, _ := f.placed(id); on != "w2" {
			t.Errorf("it is on %s", on)
		}
		events, err := f.c.MachineEvents(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		told := false
		for _, e := range events {
			told = told || e.Info["reason"] == "failover" && e.Info["from"] == "w1" &&
				e.Info["to"] == "w2"
		}
		if !told {
			t.Errorf("no event says that it left the worker that was asked for: %+v", events)
		}
	})
}

func TestAMoveToATargetThatIsSlowGoesOn(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, f *fixture) {
		f.worker("w1")
		id := f.create("a", "net").Machine.ID
		w2 := f.worker("w2")
		f.worker("w3")
		w2.set(func() { w2.all, w2.further = true, true })
		mv, err := f.c.Migrate(t.Context(), "a", "")
		if err != nil || mv.Move.To != "w2" {
			t.Fatalf("%+v, %v", mv, err)
		}
		time.Sleep(time.Minute)
		if mv, err = f.c.Move(t.Context(), mv.Move.ID); err != nil || mv.Move.To != "w2" ||
			mv.Move.Attempt != 1 {
			t.Fatalf("after 30 start timeouts, in each of which it got further: %+v, %v", mv.Move,
				err)
		}
		if b := mv.Move.Blocker; b == nil || b.Code != "start-slow" || b.Object != "worker/w2" ||
			b.Remedy == "" {
			t.Errorf("blocker %+v", mv.Move.Blocker)
		}
		w2.set(func() { w2.all = false })
		f.eventually("moved", func() bool {
			mv, err = f.c.Move(t.Context(), mv.Move.ID)
			return err == nil && mv.Move.Step == fleet.StepDone
		})
		if on, _ := f.placed(id); on != "w2" || mv.Move.Blocker != nil {
			t.Errorf("it is on %s, blocker %+v", on, mv.Move.Blocker)
		}
	})
}
