//go:build qemu

package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/test/fleettest"
)

const (
	pgScale   = 2
	pgClients = 4
	pgTime    = 8 * time.Second
)

// TestPostgresMovesBetweenRuntimes moves a database from a sandbox worker to a qemu worker and
// back, under its own benchmark and a client outside that commits rows and remembers each whose
// commit was acknowledged (invariants 2, 3, 9).
func TestPostgresMovesBetweenRuntimes(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 1, Runtime: "mixed", NoImage: true})
	m, pg, commits := startPostgres(t, f)
	bench(t, pg, "sandbox, before the moves")
	for _, hop := range []struct{ from, to, runtime string }{{"w1", "w2", "qemu"},
		{"w2", "w1", "sandbox"}} {
		commits.Await(len(commits.Acked()), 10, qemuPatience)
		load := make(chan error, 1)
		go func() { _, err := pg.Bench(t.Context(), pgClients, time.Hour); load <- err }()
		time.Sleep(2 * time.Second) // it is under way
		m = drainWorker(t, f, hop.from, hop.to, m)[0]
		if err := <-load; err == nil {
			t.Error("pgbench wasn't cut off by the move: it didn't run")
		}
		acked := commits.Acked()
		rows := commits.MustBeIn(t, acked)
		pg.MustBeWhole()
		t.Logf("moved to %s (%s): %d commits acknowledged, none lost, %d rows", hop.to, hop.runtime,
			len(acked), rows)
		bench(t, pg, hop.runtime+", after the move")
		if _, err := f.Uncordon(t.Context(), hop.from); err != nil {
			t.Fatal(err)
		}
	}
	stop(t, f, m)
	f.FsckClosed(m)
}

// TestPostgresOutlivesItsVM kills everything in a database's VM at once, kernel and all where it
// has one, while it commits, and looks for each row whose commit was acknowledged (invariants 2,
// 3).
func TestPostgresOutlivesItsVM(t *testing.T) {
	for _, c := range []struct {
		runtime string
		rounds  int
	}{{"sandbox", 5}, {"qemu", 1}} {
		t.Run(c.runtime, func(t *testing.T) {
			f := fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 1, Runtime: c.runtime,
				NoImage: true})
			m, pg, commits := startPostgres(t, f)
			for round := range c.rounds {
				commits.Await(len(commits.Acked()), 10, qemuPatience)
				load := make(chan error, 1)
				go func() { _, err := pg.Bench(t.Context(), pgClients, time.Hour); load <- err }()
				time.Sleep(time.Duration(2000+300*round) * time.Millisecond)
				killVM(t, f, m)
				<-load // cut off
				acked := commits.Acked()
				m = awaitNextInstance(t, f, m)
				rows := commits.MustBeIn(t, acked)
				pg.MustBeWhole()
				t.Logf("killed: %d commits acknowledged, none lost, %d rows", len(acked), rows)
			}
			bench(t, pg, c.runtime+", after the kills")
			stop(t, f, m)
			f.FsckClosed(m)
		})
	}
}

func startPostgres(t *testing.T,
	f *fleettest.Fleet) (api.Machine, fleettest.Postgres, *fleettest.Commits) {
	t.Helper()
	f.CreatePostgresImage()
	m, err := f.CreateMachine(t.Context(), api.CreateMachine{
		Name: "db", App: "test", Network: "green", Worker: "w1", Config: fleettest.PostgresConfig(),
	})
	if err != nil {
		t.Fatal(err)
	}
	m = f.WaitHealthy(m.ID, qemuPatience)
	pg := f.Postgres(m.ID)
	pg.BenchInit(pgScale)
	return m, pg, pg.WatchCommits()
}

func bench(t *testing.T, pg fleettest.Postgres, what string) {
	t.Helper()
	tps, err := pg.Bench(t.Context(), pgClients, pgTime)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("pgbench, %s: %.0f tps with %d clients, beside the client that commits rows", what,
		tps, pgClients)
}

func killVM(t *testing.T, f *fleettest.Fleet, m api.Machine) {
	t.Helper()
	if vm := vmOf(t, f, m); f.KillInVM(m.Worker, "init", vm.ID) == 0 {
		t.Fatalf("%s has no process of VM %s to kill", m.Worker, vm.ID)
	}
}

func awaitNextInstance(t *testing.T, f *fleettest.Fleet, m api.Machine) api.Machine {
	t.Helper()
	var now api.Machine
	f.Eventually(qemuPatience, func() error {
		var err error
		now, err = f.Machine(t.Context(), m.ID)
		if err == nil && now.InstanceID == m.InstanceID {
			err = fmt.Errorf("machine is still instance %s: %s", now.InstanceID, now.State)
		}
		return err
	})
	return f.WaitHealthy(m.ID, qemuPatience)
}
