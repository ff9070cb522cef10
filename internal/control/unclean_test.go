package control_test

import (
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// TestAnUncleanStopIsTold: the record and the history of a machine whose VM didn't close its disk
// say so, and what may be lost; those of one that did say nothing of it.
func TestAnUncleanStopIsTold(t *testing.T) {
	f := newFixture(t)
	w := f.worker("w1")
	for _, why := range []string{"", "unclean: the platform does not answer"} {
		name := "db" + string(rune('a'+len(why)%7))
		w.set(func() { w.unclean = why })
		f.create(name, "net")
		if _, err := f.c.StopMachine(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		f.eventually("stopped", func() bool {
			return f.machine(name).Machine.State == fleet.MachineStopped
		})
		events, err := f.c.MachineEvents(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		exit, reason := events[len(events)-1], f.machine(name).Machine.Reason
		told := strings.Contains(reason, "the platform does not answer") &&
			strings.Contains(reason, "nothing that was fsynced is lost") &&
			exit.Info["unclean"] == "the platform does not answer" && exit.Info["lost"] != ""
		if exit.Event != "exit" || told != (why != "") || why == "" &&
			(reason != "" || len(exit.Info) > 0) {
			t.Errorf("%q: reason %q, event %+v", why, reason, exit)
		}
		if _, _, err := f.c.WorkerOf(t.Context(), name); !errs.Is(err, errs.Conflict) ||
			errs.RemedyOf(err) != "sluice machine start app/"+name {
			t.Errorf("a stopped machine's worker: %v, remedy %q", err, errs.RemedyOf(err))
		}
		if _, err := f.c.StartMachine(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		f.eventually("started again", func() bool {
			m := f.machine(name).Machine
			return m.State == fleet.MachineStarted && m.Reason == ""
		})
	}
}

// TestMigratingToWhereItIs is refused by that reason, and changes nothing.
func TestMigratingToWhereItIs(t *testing.T) {
	f := newFixture(t, "w1", "w2")
	m := f.create("db", "net").Machine
	_, err := f.c.Migrate(t.Context(), "db", m.Placement.Worker)
	if !errs.Is(err, errs.Conflict) ||
		!strings.Contains(err.Error(), "is on "+string(m.Placement.Worker)+" already") ||
		strings.Contains(errs.RemedyOf(err), "add a worker") {
		t.Fatalf("%v, remedy %q", err, errs.RemedyOf(err))
	}
	if now := f.machine("db").Machine; now.Generation != m.Generation || now.Owner != "" {
		t.Fatalf("%+v", now)
	}
}
