package e2e

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/test/fleettest"
)

// TestDrainBackAndForth drains a worker twenty times under a writer that fsyncs numbered records
// (invariants 2, 3, 5, 6, 7, 8, 9).
func TestDrainBackAndForth(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 1})
	m := f.Create("ledger", "green", "w1", fleettest.LedgerConfig())
	acked := fleettest.WatchAcked(t, f, m.ID)

	from, to := "w1", "w2"
	for round := range 20 {
		before, err := f.Machine(t.Context(), m.ID)
		if err != nil {
			t.Fatal(err)
		}
		d, err := f.StartDrain(t.Context(), from)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		d = f.WaitDrain(d.ID, time.Minute)
		if d.State != "drained" || len(d.Moves) != 1 || d.Moves[0].DiskBytesCopied != 0 {
			t.Fatalf("round %d: drain ended as %+v", round, d)
		}
		after := f.WaitHealthy(m.ID, 2*time.Minute)
		checkSameMachine(t, before, after, to)
		acked.MustBeIn(f, after.ID)
		f.StopFsckStart(after)
		if _, err := f.Uncordon(t.Context(), from); err != nil {
			t.Fatal(err)
		}
		from, to = to, from
	}
	if acked.Last() < 100 {
		t.Fatalf("the writer only got to %d: this run proves nothing", acked.Last())
	}
	t.Logf("%d records acknowledged and found", acked.Last())
}

func checkSameMachine(t *testing.T, before, after api.Machine, worker string) {
	t.Helper()
	if after.ID != before.ID || after.Name != before.Name || after.DiskURL != before.DiskURL {
		t.Errorf("identity changed: %+v → %+v", before, after)
	}
	if !reflect.DeepEqual(after.Config, before.Config) {
		t.Errorf("config changed: %+v → %+v", before.Config, after.Config)
	}
	if after.Worker != worker {
		t.Errorf("it is on %s, not on %s", after.Worker, worker)
	}
	if after.InstanceID == before.InstanceID || after.PrivateIP == before.PrivateIP ||
		after.Generation <= before.Generation {
		t.Errorf("instance, address or generation didn't change: %+v → %+v", before, after)
	}
	for _, e := range after.Events {
		if e.InstanceID == after.InstanceID && e.Info["migrated"] == "true" {
			return
		}
	}
	t.Errorf("no event says migrated=true: %+v", after.Events)
}

// TestDrainWithoutATargetKeepsMachinesRunning: no capacity elsewhere is a blocker with a name and a
// remedy; it clears by itself when there is room (invariant 7).
func TestDrainWithoutATargetKeepsMachinesRunning(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 0, CPUs: 1})
	cfg := fleettest.LedgerConfig()
	cfg.CPUs = 1
	a := f.Create("a", "green", "w1", cfg)
	b := f.Create("b", "green", "w2", cfg)
	d, err := f.StartDrain(t.Context(), "w1")
	if err != nil {
		t.Fatal(err)
	}
	f.Eventually(10*time.Second, func() error {
		d, err = f.Drain(t.Context(), d.ID)
		if err == nil && (d.State != "blocked" || len(d.Blockers) == 0) {
			err = fmt.Errorf("drain is %s, blockers %v", d.State, d.Blockers)
		}
		return err
	})
	if bl := d.Blockers[0]; !strings.Contains(bl.Object, a.ID) || bl.Code == "" || bl.Remedy == "" {
		t.Errorf("the blocker doesn't say what, why and what to do: %+v", bl)
	}
	still, err := f.Machine(t.Context(), a.ID)
	if err != nil || still.Worker != "w1" || still.InstanceID != a.InstanceID {
		t.Fatalf("the machine didn't keep running: %+v, %v", still, err)
	}
	if _, err := f.Ledger(t.Context(), a.ID, "append"); err != nil {
		t.Fatalf("the machine doesn't answer: %v", err)
	}
	if err := f.DestroyMachine(t.Context(), b.ID); err != nil {
		t.Fatal(err)
	}
	if d = f.WaitDrain(d.ID, 2*time.Minute); d.State != "drained" {
		t.Fatalf("with room again the drain ended as %+v", d)
	}
}

// TestCancelDrain leaves every machine wholly on one side and the worker as it was (invariant 10).
func TestCancelDrain(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 1})
	var machines []api.Machine
	for i := range 4 {
		machines = append(machines, f.Create(fmt.Sprintf("m%d", i), "green", "w1",
			fleettest.LedgerConfig()))
	}
	d, err := f.StartDrain(t.Context(), "w1")
	if err != nil {
		t.Fatal(err)
	}
	f.Eventually(20*time.Second, func() error {
		d, err = f.Drain(t.Context(), d.ID)
		if err == nil && d.Moved < 1 {
			err = fmt.Errorf("%d moved", d.Moved)
		}
		return err
	})
	if _, err := f.CancelDrain(t.Context(), d.ID); err != nil {
		t.Fatal(err)
	}
	d = f.WaitDrain(d.ID, 2*time.Minute)
	if d.State != "cancelled" {
		t.Fatalf("drain ended as %s", d.State)
	}
	for _, m := range machines {
		now := f.WaitHealthy(m.ID, 2*time.Minute)
		if _, err := f.Ledger(t.Context(), m.ID, "verify"); err != nil {
			t.Errorf("%s on %s: %v", now.Name, now.Worker, err)
		}
	}
	w, err := f.Worker(t.Context(), "w1")
	if err != nil || w.State != "ready" {
		t.Errorf("w1 is %s after the cancel, %v", w.State, err)
	}
}

// TestBadInputChangesNothing: each mistake gets a code, a message that names the input, and a
// remedy.
func TestBadInputChangesNothing(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 0})
	f.Create("one", "green", "w1", fleettest.LedgerConfig())
	create := func(name string, change func(*api.CreateMachine)) func(context.Context) error {
		req := api.CreateMachine{Name: name, App: "test", Network: "green",
			Config: fleettest.LedgerConfig()}
		if change != nil {
			change(&req)
		}
		return func(ctx context.Context) error { _, err := f.CreateMachine(ctx, req); return err }
	}
	cases := []struct {
		name, code, names string
		do                func(context.Context) error
	}{
		{"clashing name", "exists", "one", create("one", nil)},
		{"bad name", "invalid", "No Good", create("No Good", nil)},
		{"image that isn't there", "not_found", "nope",
			create("x", func(r *api.CreateMachine) { r.Config.Image = "nope" })},
		{"impossible size", "invalid", "",
			create("x", func(r *api.CreateMachine) { r.Config.MemoryMiB = 1 << 30 })},
		{"unknown worker", "not_found", "w9",
			create("x", func(r *api.CreateMachine) { r.Worker = "w9" })},
		{"unknown machine", "not_found", "nobody",
			func(ctx context.Context) error { _, err := f.Machine(ctx, "nobody"); return err }},
		{"drain of an unknown worker", "not_found", "w9",
			func(ctx context.Context) error { _, err := f.StartDrain(ctx, "w9"); return err }},
		{"unknown drain", "not_found", "01",
			func(ctx context.Context) error { _, err := f.Drain(ctx, "01"); return err }},
		{"migrate to itself", "", "w1", func(ctx context.Context) error {
			_,
				err := f.MigrateMachine(ctx, "one", "w1")
			return err
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := c.do(t.Context())
			var e *api.Error
			if !asAPIError(err, &e) {
				t.Fatalf("got %v", err)
			}
			if c.code != "" && e.Code != c.code || !strings.Contains(e.Message+e.Cause, c.names) ||
				e.Remedy == "" {
				t.Errorf("code %q, message %q, remedy %q", e.Code, e.Message, e.Remedy)
			}
			machines, err := f.Machines(t.Context(), client.MachineFilter{})
			if err != nil || len(machines) != 1 {
				t.Errorf("it changed something: %d machines, %v", len(machines), err)
			}
		})
	}
}
