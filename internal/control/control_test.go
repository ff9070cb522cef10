package control_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func TestAMachinesLife(t *testing.T) {
	f := newFixture(t, "w1", "w2")
	m := f.create("db", "net").Machine
	if m.Placement.Generation != 1 || m.Owner != "" || m.Placement.Worker != "w1" {
		t.Fatalf("created as %+v", m)
	}
	if _, err := f.c.StopMachine(t.Context(), "app/db"); err != nil {
		t.Fatal(err)
	}
	f.eventually("stopped", func() bool {
		m := f.machine("db").Machine
		return m.State == fleet.MachineStopped && m.Placement == nil
	})
	if _, err := f.c.StartMachine(t.Context(), string(m.ID)); err != nil {
		t.Fatal(err)
	}
	f.eventually("started again", func() bool {
		return f.machine("db").Machine.State == fleet.MachineStarted
	})
	if again := f.machine("db").Machine; again.ID != m.ID ||
		again.Placement.Generation <= m.Generation ||
		again.Placement.Instance == m.Placement.Instance {
		t.Fatalf("started again as %+v", again)
	}
	if err := f.c.DestroyMachine(t.Context(), "db"); err != nil {
		t.Fatal(err)
	}
	f.eventually("destroyed", func() bool {
		_,
			err := f.c.Machine(t.Context(), "db")
		return errs.Is(err, errs.NotFound)
	})
	if n := f.disks.count(); n != 0 {
		t.Fatalf("%d disks left", n)
	}
	f.create("db", "net") // its name is free
}

// TestPausedForItsStore: the record, the view and the history say when a machine was paused, and
// when it went on; once each, however often that is reported.
func TestPausedForItsStore(t *testing.T) {
	f := newFixture(t)
	w := f.worker("w1")
	m := f.create("db", "net").Machine
	count := func(event string) (n int, last fleet.MachineEvent) {
		events, err := f.c.MachineEvents(t.Context(), "db")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Event == event {
				n, last = n+1, e
			}
		}
		return n, last
	}
	for round := 1; round <= 2; round++ {
		since := time.Now().Add(-3 * time.Second)
		w.set(func() {
			w.stall = &fleet.DiskStall{Since: since, Operation: "write log/1/2",
				Kind: "unavailable", Reason: "no answer"}
		})
		f.eventually("seen to stall", func() bool {
			r := f.machine("db").Report
			return r != nil &&
				r.Stall != nil && !r.Stall.Paused
		})
		if n, _ := count("disk_stall"); n != round-1 || f.machine("db").Machine.Reason != "" {
			t.Fatalf("a short stall is no event: %d", n)
		}
		w.set(func() { s := *w.stall; s.Paused = true; w.stall = &s })
		f.eventually("paused", func() bool {
			v := f.machine("db")
			return v.Machine.Reason != "" &&
				v.Report.Stall.Paused
		})
		w.set(func() {})
		w.set(func() { w.stall = nil })
		f.eventually("going on", func() bool { return f.machine("db").Machine.Reason == "" })
		begun, e := count("disk_stall")
		ended, _ := count("disk_resume")
		if begun != round || ended != round || e.Info["reason"] != "no answer" ||
			e.Info["operation"] != "write log/1/2" || e.Instance != m.Placement.Instance {
			t.Errorf("%d and %d events, the last %+v", begun, ended, e)
		}
	}
}

// TestOutOfMemory: each kill is in the history once, however often it is reported; those in a row
// share a line.
func TestOutOfMemory(t *testing.T) {
	f := newFixture(t)
	w := f.worker("w1")
	m := f.create("db", "net").Machine
	history := func() string {
		events, err := f.c.MachineEvents(t.Context(), "db")
		if err != nil {
			t.Fatal(err)
		}
		var said []string
		for _, e := range events {
			if e.Event == "out_of_memory" && e.Instance == m.Placement.Instance &&
				e.Source == "worker/w1" {
				said = append(said, e.Info["kills"])
			} else {
				said = append(said, e.Event)
			}
		}
		return strings.Join(said, " ")
	}
	before := history()
	for _, c := range []struct {
		kills int64
		want  string
	}{{1, " 1"}, {1, " 1"}, {4, " 4"}, {4, " 4"}} {
		w.set(func() { w.oom = &fleet.OOMReport{Kills: c.kills, Last: time.Now()} })
		f.eventually("told of", func() bool { return history() == before+c.want })
	}
	w.set(func() {
		w.stall = &fleet.DiskStall{Since: time.Now(), Kind: "unavailable",
			Paused: true}
	})
	f.eventually("paused", func() bool { return history() == before+" 4 disk_stall" })
	w.set(func() { w.oom = &fleet.OOMReport{Kills: 5, Last: time.Now()} })
	f.eventually("told of", func() bool { return history() == before+" 4 disk_stall 5" })
}

// TestSilentPlatform: the record, the view and the history say since when the platform of a
// machine's VM is silent, that it answers again, and that it was started again; once each, however
// often that is reported.
func TestSilentPlatform(t *testing.T) {
	f := newFixture(t)
	w := f.worker("w1")
	f.create("db", "net")
	events := func() (all []string) {
		lines, err := f.c.MachineEvents(t.Context(), "db")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range lines {
			if strings.HasPrefix(e.Event, "platform_") {
				all = append(all, strings.TrimSpace(
					e.Event+" "+e.Info["since"]+e.Info["restarts"]+e.Info["reason"]))
			}
		}
		return all
	}
	since := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	w.set(func() { w.mute = since })
	f.eventually("silent", func() bool { return f.machine("db").Machine.Reason != "" })
	v := f.machine("db")
	if v.Machine.State != fleet.MachineStarted || v.Report.Healthy() ||
		v.Machine.Reason != "platformd of the VM has been silent since 2026-05-04T03:02:01Z" {
		t.Errorf("it is %s, healthy %v, %q", v.Machine.State, v.Report.Healthy(), v.Machine.Reason)
	}
	w.set(func() {})
	w.set(func() {
		w.restarts = &fleet.PlatformReport{Count: 1, Last: time.Now(),
			Reason: "killed"}
	})
	f.eventually("restarted", func() bool { return len(events()) == 2 })
	w.set(func() { w.mute = time.Time{} })
	f.eventually("answers", func() bool { return f.machine("db").Machine.Reason == "" })
	want := []string{"platform_silent 2026-05-04T03:02:01Z", "platform_restart 1killed",
		"platform_answers"}
	if got := events(); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
	if !f.machine("db").Report.Healthy() {
		t.Error("it isn't healthy again")
	}
}

// TestServicesInTheHistory: what a worker reports of services is in the machine's history, once.
func TestServicesInTheHistory(t *testing.T) {
	f := newFixture(t)
	w := f.worker("w1")
	f.create("db", "net")
	history := func() string {
		events, err := f.c.MachineEvents(t.Context(), "db")
		if err != nil {
			t.Fatal(err)
		}
		var said []string
		for _, e := range events {
			if strings.HasPrefix(e.Event, "service_") {
				said = append(said,
					e.Event+" "+e.Info["service"]+" "+e.Info["reason"]+e.Info["times"])
			}
		}
		return strings.Join(said, ", ")
	}
	began := time.Now().UTC()
	r := fleet.ServiceReport{Name: "web", State: "running", StartedAt: began}
	report := func() { w.set(func() { w.services = []fleet.ServiceReport{r} }) }
	report()
	f.eventually("started", func() bool { return history() == "service_start web " })
	for range 3 {
		r.State, r.Restarts, r.Exit, r.ExitedAt = "failed", r.Restarts+1, "exit code 3",
			time.Now().UTC()
		report()
		f.eventually("told of", func() bool {
			v := f.machine("db").Report
			return len(v.Services) == 1 && v.Services[0].Restarts == r.Restarts &&
				strings.HasPrefix(history(), "service_start web , service_exit web exit code 3")
		})
	}
	f.eventually("counted", func() bool {
		return history() == "service_start web , service_exit web exit code 33"
	})
	f.serve() // another server knows what was told
	f.eventually("reported to it", func() bool { return f.machine("db").Report != nil })
	r.State, r.StartedAt = "ready", time.Now().UTC()
	report()
	f.eventually("back", func() bool {
		return history() == "service_exit web exit code 33, service_start web "
	})
}

// TestMoveOfAMachineThatIsNotHealthy: one with a service that ends over and over is moved as it is;
// a drain doesn't wait for it to get well on the target.
func TestMoveOfAMachineThatIsNotHealthy(t *testing.T) {
	f := newFixture(t)
	w := f.worker("w1")
	w.set(func() {
		w.services = []fleet.ServiceReport{{Name: "web", State: "failed", Restarts: 9,
			Error: "exit code 0"}}
	})
	m := f.create("db", "net").Machine
	f.eventually("reported", func() bool {
		r := f.machine("db").Report
		return r != nil &&
			len(r.Services) == 1
	})
	f.worker("w2")
	mv, err := f.c.Migrate(t.Context(), string(m.ID), "w2")
	if err != nil {
		t.Fatal(err)
	}
	if !mv.Move.WasUnhealthy {
		t.Errorf("the move takes it for healthy: %+v", mv.Move)
	}
}

func TestDrainMovesEverything(t *testing.T) {
	f := newFixture(t, "w1", "w2", "w3")
	before := map[fleet.MachineName]fleet.Machine{}
	for _, n := range []string{"a", "b", "c", "d"} {
		m := f.create(n, "net-"+n[:1]).Machine
		before[m.Name] = m
	}
	f.create("e", "net-a")
	dv, err := f.c.StartDrain(t.Context(), []fleet.WorkerID{"w1"}, "test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.c.StartDrain(t.Context(), []fleet.WorkerID{"w1"}, "test"); !errs.Is(err,
		errs.Conflict) {
		t.Fatalf("second drain: %v", err)
	}
	f.eventually("drained", func() bool {
		dv, err = f.c.Drain(t.Context(), dv.Drain.ID)
		return err == nil && dv.Drain.State == fleet.DrainDone
	})
	if dv.Drain.Moved != len(dv.Moves) || dv.Drain.Total != dv.Drain.Moved || dv.Drain.Moved == 0 {
		t.Fatalf("moved %d of %d, %d moves", dv.Drain.Moved, dv.Drain.Total, len(dv.Moves))
	}
	ended := f.ended.take()
	if len(ended) != len(dv.Moves) {
		t.Errorf("%d moves, %d told of", len(dv.Moves), len(ended))
	}
	for _, mv := range ended {
		if mv.PauseMS <= 0 || mv.FinishedAt.IsZero() ||
			mv.Steps[len(mv.Steps)-1].Step != fleet.StepDone {
			t.Errorf("told of %+v", mv)
		}
	}
	for _, mv := range dv.Moves {
		if mv.Move.Step != fleet.StepDone || mv.Move.PauseMS <= 0 ||
			mv.Move.Proof != fleet.ProofReleased || mv.Move.DiskBytesCopied != 0 {
			t.Errorf("move ended as %+v", mv.Move)
		}
		m, old := f.machine(string(mv.Move.Machine)).Machine, before[mv.MachineName]
		if m.ID != old.ID || m.Placement.Worker == "w1" ||
			m.Placement.Address == old.Placement.Address ||
			m.Placement.Instance == old.Placement.Instance {
			t.Errorf("%s: before %+v, after %+v", mv.MachineName, old.Placement, m.Placement)
		}
		if !migrated(f, m.ID) {
			t.Errorf("%s has no event with migrated=true", mv.MachineName)
		}
	}
	w, err := f.c.Worker(t.Context(), "w1")
	if err != nil || w.State != fleet.WorkerDrained || !w.SafeToStop ||
		len(w.Allocation.Holders) != 0 {
		t.Fatalf("worker after the drain: %+v %v", w, err)
	}
	if w, err = f.c.Uncordon(t.Context(), "w1"); err != nil || w.State != fleet.WorkerReady {
		t.Fatalf("uncordoned: %+v %v", w, err)
	}
	f.serve()
	if again := f.ended.take(); len(again) != 0 {
		t.Errorf("a server that starts tells of %d moves that ended before", len(again))
	}
}

func migrated(f *fixture, id fleet.MachineID) bool {
	events, err := f.c.MachineEvents(f.t.Context(), string(id))
	if err != nil {
		f.t.Fatal(err)
	}
	for _, e := range events {
		if e.Info["migrated"] == "true" && e.Info["from"] == "w1" {
			return true
		}
	}
	return false
}

func TestBadInputChangesNothing(t *testing.T) {
	f := newFixture(t, "w1", "w2")
	f.create("a", "net")
	for name, c := range map[string]struct {
		edit func(*fleet.CreateMachine)
		kind errs.Kind
	}{
		"clash": {func(r *fleet.CreateMachine) {}, errs.Exists},
		"no image": {func(r *fleet.CreateMachine) { r.Name, r.Config.Image = "b", "nope" },
			errs.NotFound},
		"no worker": {func(r *fleet.CreateMachine) { r.Name, r.Worker = "b", "w9" },
			errs.NotFound},
		"bad name": {func(r *fleet.CreateMachine) { r.Name = "B!" }, errs.Invalid},
		"impossible": {func(r *fleet.CreateMachine) {
			r.Name,
				r.Config.Resources.MemoryMiB = "b", 4096
		}, errs.Invalid},
		"nothing": {func(r *fleet.CreateMachine) {
			r.Name,
				r.Config.Resources.CPUMillis = "b", 0
		}, errs.Invalid},
		"no room there": {func(r *fleet.CreateMachine) {
			r.Name, r.Worker,
				r.Config.Resources.MemoryMiB = "b", "w1", 1024
		}, errs.Exhausted},
		"small disk": {func(r *fleet.CreateMachine) { r.Name, r.Config.DiskGiB = "b", -1 },
			errs.Invalid},
		"needs a circle": {func(r *fleet.CreateMachine) {
			r.Name, r.Config.Services = "b",
				circle()
		}, errs.Invalid},
	} {
		req := request("a", "net")
		c.edit(&req)
		_, err := f.c.CreateMachine(t.Context(), req)
		if !errs.Is(err, c.kind) {
			t.Errorf("%s: %v, want %s", name, err, c.kind)
		}
		if c.kind != errs.Invalid && errs.RemedyOf(err) == "" {
			t.Errorf("%s: no remedy: %v", name, err)
		}
	}
	f.disks.mu.Lock()
	f.disks.fail = errs.New(errs.Unavailable, "the store is down")
	f.disks.mu.Unlock()
	if _, err := f.c.CreateMachine(t.Context(), request("b", "net")); !errs.Is(err,
		errs.Unavailable) {
		t.Errorf("fork fails: %v", err)
	}
	all, err := f.c.Machines(t.Context(), fleet.MachineFilter{})
	if err != nil || len(all) != 1 || f.disks.count() != 1 {
		t.Fatalf("left behind: %+v, %d disks, %v", all, f.disks.count(), err)
	}
	for _, w := range []fleet.WorkerID{"w1", "w2"} {
		v, err := f.c.Worker(t.Context(), w)
		if err != nil || len(v.Allocation.Holders) != v.Machines {
			t.Errorf("%s holds %+v for %d machines, %v", w, v.Allocation.Holders, v.Machines, err)
		}
	}
}

func circle() []fleet.Service {
	return []fleet.Service{{Name: "x", Cmd: []string{"x"}, Needs: []string{"y"}},
		{Name: "y", Cmd: []string{"y"}, Needs: []string{"x"}}}
}
