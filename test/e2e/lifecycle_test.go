package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/client"
	"github.com/sluice-platform/sluice/internal/blob/blobs"
	"github.com/sluice-platform/sluice/internal/disk"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/test/fleettest"
)

// TestLivesOfMachines takes machines and workers through what an operator does to them, and what
// happens to them.
func TestLivesOfMachines(t *testing.T) {
	f := fleettest.Start(t, fleettest.Options{Workers: 3, Pool: 1,
		Args: []string{"--worker-suspect", "1500ms", "--worker-down", "3s"}})
	for _, c := range []struct {
		name string
		run  func(*testing.T, *fleettest.Fleet)
	}{
		{"services", servicesAreKept},
		{"disk", diskIsGuarded},
		{"cordon", cordonedTakesNothing},
		{"destroy while moving", destroyWhileMoving},
		{"stop while draining", stopWhileDraining},
		{"two of three", drainTwoOfThree},
		{"all", drainAll},
		{"worker daemon", daemonRestart},
		{"server", serverDiesInADrain},
		{"failover and return", failoverAndReturn},
	} {
		if !t.Run(c.name, func(t *testing.T) { c.run(t, f) }) {
			return // the next would meet a fleet that is not as it expects
		}
	}
}

func destroy(t *testing.T, f *fleettest.Fleet, refs ...string) {
	t.Helper()
	for _, ref := range refs {
		if got := f.Sluice("machine", "destroy", ref, "--yes"); got.Code != 0 {
			t.Fatalf("destroy %s: %+v", ref, got)
		}
	}
}

// servicesAreKept: a crash is followed by a restart, ever later; a service that ignores its stop
// signal is killed after its time.
func servicesAreKept(t *testing.T, f *fleettest.Fleet) {
	cfg := idle(
		api.Service{Name: "crash", Cmd: []string{"sh", "-c", "echo again; exit 3"}},
		api.Service{Name: "stubborn", Cmd: []string{"sh", "-c",
			"trap : TERM; while :; do sleep 1; done"}})
	cfg.StopTimeout = 1
	m, err := f.CreateMachine(t.Context(),
		api.CreateMachine{Name: "kept", App: "test", Network: "green", Worker: "w1", Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	f.Eventually(20*time.Second, func() error {
		now, err := f.Machine(t.Context(), m.ID)
		if err != nil {
			return err
		}
		for _, s := range now.Services {
			if s.Name == "crash" && s.Restarts >= 3 && strings.Contains(s.Error, "exit code 3") {
				return nil
			}
		}
		return fmt.Errorf("services are %+v", now.Services)
	})
	began := time.Now()
	if got := f.Sluice("machine", "stop", m.ID); got.Code != 0 {
		t.Fatalf("stop: %+v", got)
	}
	if took := time.Since(began); took < time.Second || took > 10*time.Second {
		t.Errorf("a stop with a stubborn service and a timeout of 1 s took %s", took)
	}
	if got := f.Sluice("machine", "migrate", m.ID); got.Code != 4 ||
		!strings.Contains(got.Stderr, "try: ") {
		t.Errorf("migrate a stopped machine: %+v", got)
	}
	if got := f.Sluice("machine", "exec", m.ID, "--", "true"); got.Code != 125 {
		t.Errorf("exec in a stopped machine: %+v", got)
	}
	destroy(t, f, m.ID)
}

// diskIsGuarded: an attach with an older generation is refused, and so is a checkpoint behind the
// owner's back; a destroyed machine's objects go (invariant 4).
func diskIsGuarded(t *testing.T, f *fleettest.Fleet) {
	m := f.Create("guarded", "green", "w1", idle())
	if got := f.Sluice("disk", "top", "--machine", m.ID, "--once", "--json"); got.Code != 0 ||
		!strings.Contains(got.Stdout, `"machine": "`+m.Name+`"`) ||
		!strings.Contains(got.Stdout, `"state": "ok"`) {
		t.Errorf("disk top --machine: %+v", got)
	}
	if got := f.Sluice("disk", "checkpoint", m.DiskURL, "behind"); got.Code != 4 ||
		!strings.Contains(got.Stderr, "--machine") {
		t.Errorf("checkpoint of an attached disk: %+v", got)
	}
	moved, err := f.MigrateMachine(t.Context(), m.ID, "w2")
	if err != nil {
		t.Fatal(err)
	}
	if moved, err = f.WaitMove(t.Context(), moved.ID); err != nil || moved.Step != "done" {
		t.Fatalf("move ended as %+v, %v", moved, err)
	}
	pool, path, err := blobs.SplitDiskURL(m.DiskURL)
	if err != nil {
		t.Fatal(err)
	}
	store, err := blobs.Open(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	key, err := f.DiskKEK(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	_, err = disk.Attach(t.Context(), store, path,
		disk.AttachOptions{Generation: m.Generation, Holder: "late", Key: key})
	if !errs.Is(err, errs.Fenced) || errs.RemedyOf(err) == "" {
		t.Errorf("an attach with generation %d, late: %v (remedy %q)", m.Generation, err,
			errs.RemedyOf(err))
	}
	f.Run(m.ID, "sh", "-c", "echo still mine > /data/x && sync")
	destroy(t, f, m.ID)
	if got := f.Sluice("disk", "info", m.DiskURL); got.Code != 3 {
		t.Errorf("the disk of a destroyed machine: %+v", got)
	}
	if images, err := f.Images(t.Context()); err != nil || len(images) != 1 {
		t.Errorf("images %+v, %v", images, err)
	}
}

func cordonedTakesNothing(t *testing.T, f *fleettest.Fleet) {
	m := f.Create("stays", "green", "w1", idle())
	if got := f.Sluice("worker", "cordon", "w2"); got.Code != 0 {
		t.Fatalf("cordon: %+v", got)
	}
	got := f.Sluice("machine", "migrate", m.ID, "--to", "w2")
	if got.Code == 0 || !strings.Contains(got.Stderr, "cordoned") ||
		!strings.Contains(got.Stderr, "try: sluice worker uncordon w2") {
		t.Errorf("migrate to a cordoned worker: %+v", got)
	}
	if now := f.WaitHealthy(m.ID, 0); now.InstanceID != m.InstanceID {
		t.Errorf("a refused move touched the machine: %+v", now)
	}
	if got := f.Sluice("worker", "uncordon", "w2"); got.Code != 0 {
		t.Fatalf("uncordon: %+v", got)
	}
	destroy(t, f, m.ID)
}

func destroyWhileMoving(t *testing.T, f *fleettest.Fleet) {
	for range 3 {
		m := f.Create("gone", "green", "w1", idle())
		move, err := f.MigrateMachine(t.Context(), m.ID, "w2")
		if err != nil {
			t.Fatal(err)
		}
		destroy(t, f, m.ID)
		if got := f.Sluice("disk", "info", m.DiskURL); got.Code != 3 {
			t.Errorf("after move %s the disk: %+v", move.ID, got)
		}
	}
	empty(t, f)
}

// empty waits until no worker has a VM, a placement or a reservation.
func empty(t *testing.T, f *fleettest.Fleet) {
	t.Helper()
	f.Eventually(20*time.Second, func() error {
		workers, err := f.Workers(t.Context())
		if err != nil {
			return err
		}
		for _, w := range workers {
			if w.Machines != 0 || w.Reserved != 0 || w.CPUsUsed != 0 || w.MemoryUsed != 0 {
				return fmt.Errorf("left on %s: %+v", w.ID, w)
			}
			if vms, err := f.VMs(w.ID); err != nil ||
				slices.ContainsFunc(vms, func(v fleettest.VM) bool { return v.Machine != "" }) {
				return fmt.Errorf("VMs on %s: %+v, %w", w.ID, vms, err)
			}
		}
		return nil
	})
}

func stopWhileDraining(t *testing.T, f *fleettest.Fleet) {
	a, b := f.Create("a", "green", "w1", idle()), f.Create("b", "green", "w1", idle())
	d, err := f.StartDrain(t.Context(), "w1")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []api.Machine{a, b} {
		if got := f.Sluice("machine", "stop", m.ID); got.Code != 0 {
			t.Fatalf("stop: %+v", got)
		}
	}
	if d = f.WaitDrain(d.ID, 2*time.Minute); d.State != "drained" {
		t.Fatalf("drain ended as %+v", d)
	}
	for _, m := range []api.Machine{a, b} {
		now, err := f.Machine(t.Context(), m.ID)
		if err != nil || now.State != "stopped" {
			t.Errorf("%s is %s, %v", now.Name, now.State, err)
		}
	}
	uncordon(t, f, "w1")
	destroy(t, f, a.ID, b.ID)
	empty(t, f)
}

func uncordon(t *testing.T, f *fleettest.Fleet, workers ...string) {
	t.Helper()
	for _, w := range workers {
		if _, err := f.Uncordon(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
}

func drainTwoOfThree(t *testing.T, f *fleettest.Fleet) {
	f.Create("a", "green", "w1", idle(httpd()))
	f.Create("b", "green", "w2", idle(httpd()))
	f.Create("c", "blue", "w2", idle(httpd()))
	got := f.Sluice("worker", "drain", "w1", "w2", "--wait", "--timeout", "50s")
	if got.Code != 0 || !strings.Contains(got.Stdout, "w1, w2: safe to power off") ||
		strings.Count(got.Stdout, "→ w3") != 3 {
		t.Fatalf("drain: %+v", got)
	}
	var last api.Drain
	// a source that is clean is noted once the drain, too, has seen it
	f.Eventually(time.Minute, func() error {
		drains, err := f.Drains(t.Context())
		if err != nil {
			return err
		}
		last = drains[len(drains)-1]
		for _, move := range last.Moves {
			if n := len(move.Steps); n == 0 || move.Steps[n-1].Step != "done" {
				return fmt.Errorf("the move of %s is at %+v", move.MachineName, move.Steps)
			}
		}
		return nil
	})
	for _, move := range last.Moves {
		stepsInOrder(t, move)
	}
}

// stepsInOrder checks what a move recorded: all steps of one that went well, once, and each after
// the one before.
func stepsInOrder(t *testing.T, move api.Move) {
	t.Helper()
	var names []string
	for i, s := range move.Steps {
		names = append(names, s.Step)
		if i > 0 && s.At.Before(move.Steps[i-1].At) {
			t.Errorf("step %s of %s is before %s", s.Step, move.MachineName, move.Steps[i-1].Step)
		}
	}
	want := "planned reserved locked prepared stopping released committed attached started healthy unlocked done"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("steps of %s: %s", move.MachineName, got)
	}
}

// drainAll: nowhere to go. Everything keeps running, the drain names each machine, and a cancel
// undoes it.
func drainAll(t *testing.T, f *fleettest.Fleet) {
	uncordon(t, f, "w1", "w2")
	got := f.Sluice("worker", "drain", "w1", "w2", "w3")
	if got.Code != 8 || strings.Count(got.Stdout, "blocked: machine/") != 3 ||
		!strings.Contains(got.Stdout, "test/a needs 0.25 cpus") ||
		!strings.Contains(got.Stderr, "sluice drain cancel ") {
		t.Errorf("drain of all: %+v", got)
	}
	_, id, _ := strings.Cut(got.Stderr, "sluice drain cancel ")
	if got := f.Sluice("drain", "cancel", strings.TrimSpace(id)); got.Code != 0 {
		t.Fatalf("cancel: %+v", got)
	}
	if d := f.WaitDrain(strings.TrimSpace(id), 2*time.Minute); d.State != "cancelled" {
		t.Errorf("drain is %s", d.State)
	}
	for _, name := range []string{"a", "b", "c"} {
		if m := f.WaitHealthy(name, 0); m.Worker != "w3" {
			t.Errorf("%s is on %s", name, m.Worker)
		}
	}
	for _, w := range []string{"w1", "w2", "w3"} {
		if now, err := f.Worker(t.Context(), w); err != nil || now.State != "ready" {
			t.Errorf("%s is %s, %v", w, now.State, err)
		}
	}
}

// daemonRestart: the VMs of a worker outlive its daemon, and so does a connection to a service in
// one.
func daemonRestart(t *testing.T, f *fleettest.Fleet) {
	m := f.Create("echo", "green", "w3",
		idle(api.Service{Name: "echo", Cmd: []string{"nc", "-l", "-l", "-p", "9000", "-e", "cat"},
			Check: &api.Check{Kind: "tcp", Port: 9000}}))
	talker := f.Create("talker", "green", "w1",
		idle(api.Service{Name: "talk", Cmd: []string{"sh", "-c",
			"(while :; do echo hello; usleep 20000; done) | nc $PEER 9000 > /data/heard; echo cut off >> /data/heard; exec sleep 9999"},
			Env: map[string]string{"PEER": m.PrivateIP}}))
	heard := 0
	hears := func(when string) {
		t.Helper()
		before := heard
		f.Eventually(10*time.Second, func() error {
			out := f.Run(talker.ID, "sh", "-c", "cat /data/heard || true")
			if strings.Contains(out, "cut off") {
				t.Fatalf("the connection did not outlive the daemon, %s", when)
			}
			if heard = strings.Count(out, "hello"); heard < before+5 {
				return fmt.Errorf("%d lines came back before, %d %s", before, heard, when)
			}
			return nil
		})
	}
	hears("at first")
	if err := f.KillDaemon(t.Context(), "w3"); err != nil {
		t.Fatal(err)
	}
	hears("without the daemon")
	if got := f.Sluice("machine", "exec", m.ID, "--", "true"); got.Code != 125 ||
		!strings.Contains(got.Stderr, "try: ") {
		t.Errorf("exec without a worker: %+v", got)
	}
	if err := f.Start(t.Context(), "w3"); err != nil {
		t.Fatal(err)
	}
	hears("with the next daemon")
	if now := f.WaitHealthy(m.ID, 2*time.Minute); now.InstanceID != m.InstanceID ||
		len(ownEvents(now)) != len(ownEvents(m)) || now.Services[0].PID != m.Services[0].PID {
		t.Errorf("a restart of the daemon touched the machine: %+v", now)
	}
	f.Run(m.ID, "true")
}

// ownEvents is a machine's history without that of its services, which may be told a moment later.
func ownEvents(m api.Machine) []api.Event {
	return slices.DeleteFunc(slices.Clone(m.Events),
		func(e api.Event) bool { return strings.HasPrefix(e.Event, "service_") })
}

// serverDiesInADrain: restarted, it goes on with it.
func serverDiesInADrain(t *testing.T, f *fleettest.Fleet) {
	d, err := f.StartDrain(t.Context(), "w3")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.SignalServer(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := f.Sluice("machine", "list"); got.Code != 5 || !strings.Contains(got.Stderr, "try: ") {
		t.Errorf("without a server: %+v", got)
	}
	if err := f.StartServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d = f.WaitDrain(d.ID, 2*time.Minute); d.State != "drained" || d.Moved != 4 {
		t.Fatalf("drain ended as %+v", d)
	}
	uncordon(t, f, "w3")
}

// failoverAndReturn: a worker's plug is pulled; its machines come back elsewhere, and it comes back
// empty.
func failoverAndReturn(t *testing.T, f *fleettest.Fleet) {
	m := f.Create("victim", "red", "w1", idle())
	f.Run(m.ID, "sh", "-c", "echo precious > /data/x && sync")
	if got := f.Sluice("dev", "kill", "w1"); got.Code != 0 {
		t.Fatalf("kill: %+v", got)
	}
	f.Eventually(30*time.Second, func() error {
		now, err := f.Machine(t.Context(), m.ID)
		if err == nil && (now.Worker == "w1" || !now.Healthy) {
			err = errors.New("it is " + now.State + " on " + now.Worker)
		}
		return err
	})
	now := f.WaitHealthy(m.ID, 2*time.Minute)
	last := now.Events[slices.IndexFunc(now.Events,
		func(e api.Event) bool { return e.Info["reason"] == "failover" })]
	if last.Info["migrated"] != "true" || last.Info["proof"] != "storage" ||
		last.Info["from"] != "w1" {
		t.Errorf("the failover's event: %+v", last)
	}
	if got := f.Run(m.ID, "cat", "/data/x"); got != "precious\n" {
		t.Errorf("the data is %q", got)
	}
	if got := f.Sluice("dev", "start", "w1"); got.Code != 0 {
		t.Fatalf("start: %+v", got)
	}
	f.Eventually(20*time.Second, func() error {
		w, err := f.Worker(t.Context(), "w1")
		if err == nil && (w.State != "ready" || w.Machines != 0) {
			err = fmt.Errorf("w1 is %s with %d machines", w.State, w.Machines)
		}
		return err
	})
	if machines, err := f.Machines(t.Context(), client.MachineFilter{}); err != nil ||
		len(machines) != 6 {
		t.Errorf("%d machines, %v", len(machines), err)
	}
}
