package httpapi

import (
	"math"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
	"github.com/sluice-platform/sluice/internal/x/filledtest"
)

// TestConfigSurvivesTheRoundTrip: what is asked for is what is shown.
func TestConfigSurvivesTheRoundTrip(t *testing.T) {
	in := api.MachineConfig{Image: "base", CPUs: 0.25, MemoryMiB: 512, DiskGiB: 20,
		Env:        map[string]string{"A": "b=c"},
		StopSignal: "SIGINT", StopTimeout: 2.5, Services: []api.Service{
			{Name: "db", Cmd: []string{"postgres", "-D", "/data"},
				Env: map[string]string{"X": "y"}, Dir: "/srv",
				Check: &api.Check{Kind: "exec", Cmd: []string{"pg_isready"}}},
			{Name: "web", Cmd: []string{"httpd"}, HTTPPort: 8080, Needs: []string{"db"},
				Check: &api.Check{Kind: "http", Port: 8080, Path: "/ok", Interval: 0.5,
					Timeout: 2, Grace: 10}}}, NoFile: 4096,
		User: "web:www", NoNewPrivileges: true, Isolation: "vm"}
	if zero := filledtest.Zero(in); len(zero) > 0 {
		t.Errorf("not sent round: give these a value here: %v", zero)
	}
	config, err := configFromAPI(in)
	if err != nil {
		t.Fatal(err)
	}
	if got := configToAPI(config); !reflect.DeepEqual(got, in) {
		t.Fatalf("got  %+v\nwant %+v", got, in)
	}
}

func TestConfigDefaults(t *testing.T) {
	c, err := configFromAPI(api.MachineConfig{Image: "base", Services: []api.Service{
		{Name: "web", Cmd: []string{"httpd"}, HTTPPort: 80, Check: &api.Check{Kind: "http"}}}})
	if err != nil {
		t.Fatal(err)
	}
	want := fleet.MachineConfig{Image: "base",
		Resources: fleet.Resources{CPUMillis: 1000, MemoryMiB: 256},
		Stop:      fleet.StopConfig{Signal: "SIGTERM"},
		Services: []fleet.Service{{Name: "web", Cmd: []string{"httpd"}, HTTPPort: 80,
			Check: &fleet.Check{Kind: fleet.CheckHTTP, Port: 80, Path: "/"}}}}
	if !reflect.DeepEqual(c, want) {
		t.Fatalf("got  %+v\nwant %+v", c, want)
	}
}

func TestSignalNames(t *testing.T) {
	for in, want := range map[string]string{
		"": "SIGTERM", "int": "SIGINT", "SIGHUP": "SIGHUP", "Usr1": "SIGUSR1", "CONT": "", "9": "",
	} {
		c, err := configFromAPI(api.MachineConfig{Image: "base", StopSignal: in})
		if err != nil != (want == "") || err == nil && c.Stop.Signal != want {
			t.Errorf("%q = %q, %v", in, c.Stop.Signal, err)
		}
	}
}

func TestSecondsAreNumbers(t *testing.T) {
	for _, bad := range []float64{-1, math.NaN(), math.Inf(1), 1e300} {
		if _, err := configFromAPI(api.MachineConfig{Image: "base", StopTimeout: bad}); !errs.Is(
			err, errs.Invalid) {
			t.Errorf("a stop timeout of %v: %v", bad, err)
		}
		if _, err := configFromAPI(api.MachineConfig{Image: "base", CPUs: bad}); !errs.Is(err,
			errs.Invalid) {
			t.Errorf("%v cpus: %v", bad, err)
		}
	}
}

// TestHealthNeedsThePlacementThatCounts: a report of an older incarnation says nothing.
func TestHealthNeedsThePlacementThatCounts(t *testing.T) {
	at := func(state fleet.MachineState, placed, reported fleet.Generation,
		phase fleet.Phase) bool {
		return machineToAPI(fleet.MachineView{
			Machine: fleet.Machine{State: state, Placement: &fleet.Placement{Generation: placed}},
			Report:  &fleet.VMReport{Generation: reported, Phase: phase}}).Healthy
	}
	if !at(fleet.MachineStarted, 3, 3, fleet.PhaseHealthy) {
		t.Error("a healthy machine isn't shown as such")
	}
	if at(fleet.MachineStarted, 3, 2, fleet.PhaseHealthy) ||
		at(fleet.MachineMoving, 3, 3, fleet.PhaseHealthy) ||
		at(fleet.MachineStarted, 3, 3, fleet.PhaseRunning) {
		t.Error("a machine that isn't healthy is shown as such")
	}
}

// TestViewsLeaveOutNothing: each field of the API has a value if all that it is made of has one.
func TestViewsLeaveOutNothing(t *testing.T) {
	var machine fleet.MachineView
	var worker fleet.WorkerView
	var drain fleet.DrainView
	var image fleet.Image
	var event fleet.MachineEvent
	for _, v := range []any{&machine, &worker, &drain, &image, &event} {
		filledtest.Fill(v)
	}
	machine.Machine.Placement.Address = netip.MustParseAddr("fd00::1")
	worker.Worker.Address = machine.Machine.Placement.Address
	m := machineToAPI(machine)
	m.Healthy = true // it isn't, as it is paused: TestAStalledMachine

	m.Events = eventsToAPI([]fleet.MachineEvent{event}) // as getMachine does
	for _, view := range []any{m, workerToAPI(worker), drainToAPI(drain), imageToAPI(image)} {
		if zero := filledtest.Zero(view); len(zero) > 0 {
			t.Errorf("%T has no %v", view, zero)
		}
	}
}

func TestViewsAreWhole(t *testing.T) {
	at := time.Unix(1, 0)
	move := moveToAPI(fleet.MoveView{MachineName: "web-1",
		Move: fleet.Move{ID: "m", Machine: "x", Step: fleet.StepDone, PauseMS: 12.5,
			Steps:   []fleet.StepRecord{{Step: fleet.StepPlanned, At: at, Note: "n"}},
			Proof:   fleet.ProofStorage,
			Blocker: &fleet.Blocker{Code: "no-capacity", Object: "machine/x", Since: at}}})
	if move.Steps[0] != (api.Step{Step: "planned", At: at, Note: "n"}) ||
		move.Blocker.Code != "no-capacity" || move.Proof != "storage" || move.PauseMS != 12.5 {
		t.Errorf("%+v", move)
	}
	worker := workerToAPI(fleet.WorkerView{
		Allocation: fleet.Allocation{Holders: map[fleet.MachineID]fleet.Allocated{
			"a": {Resources: fleet.Resources{CPUMillis: 1500, MemoryMiB: 10}},
			"b": {Resources: fleet.Resources{CPUMillis: 500, MemoryMiB: 5}, Move: "m"}}},
		Report: &fleet.WorkerReport{PoolReady: 3,
			Pressure:     &fleet.Pressure{CPU: 0.6, Memory: 0.1, IO: 0.2, Load: 5, Cores: 2},
			Acceleration: &fleet.Acceleration{Kind: "tcg", Reason: "why"},
			Conditions:   []fleet.Condition{{Name: "c"}}}})
	if worker.CPUsUsed != 2 || worker.MemoryUsed != 15 || worker.Reserved != 1 ||
		worker.PoolReady != 3 || worker.Acceleration != "tcg" ||
		worker.AccelerationReason != "why" || worker.Conditions[0].Name != "c" ||
		worker.Pressure == nil || *worker.Pressure != (api.Pressure{CPU: 0.6, Memory: 0.1, IO: 0.2,
		Load: 5, Cores: 2, High: true}) {
		t.Errorf("%+v", worker)
	}
}

// TestExecFramesAreTheGuests: both ends of an exec session mean the same bytes.
func TestExecFramesAreTheGuests(t *testing.T) {
	ours := []byte{api.FrameStdin, api.FrameStdout, api.FrameStderr, api.FrameExit,
		api.FrameStdinEOF, api.FrameError, api.FrameCommand}
	theirs := []byte{guestapi.FrameStdin, guestapi.FrameStdout, guestapi.FrameStderr,
		guestapi.FrameExit, guestapi.FrameStdinEOF, guestapi.FrameError, guestapi.FrameCommand}
	if !reflect.DeepEqual(ours, theirs) {
		t.Fatalf("%v, %v", ours, theirs)
	}
}

// TestAStalledMachine: what the store doesn't do is shown, and who is paused for it is not healthy.
func TestAStalledMachine(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	v := fleet.MachineView{Machine: fleet.Machine{State: fleet.MachineStarted,
		Placement: &fleet.Placement{Generation: 1}},
		Report: &fleet.VMReport{Generation: 1, Phase: fleet.PhaseHealthy,
			Stall: &fleet.DiskStall{Since: at, Operation: "write x", Kind: "denied", Reason: "why",
				Remedy: "do"}}}
	m := machineToAPI(v)
	if want := (api.DiskStall{Since: at, Operation: "write x", Kind: "denied", Reason: "why",
		Remedy: "do"}); m.DiskStall == nil || *m.DiskStall != want || !m.Healthy {
		t.Errorf("stalled: %+v, healthy %v", m.DiskStall, m.Healthy)
	}
	v.Report.Stall.Paused = true
	if m := machineToAPI(v); !m.DiskStall.Paused || m.Healthy {
		t.Errorf("paused: %+v, healthy %v", m.DiskStall, m.Healthy)
	}
	v.Report.Stall = nil
	if m := machineToAPI(v); m.DiskStall != nil || !m.Healthy {
		t.Errorf("neither: %+v, healthy %v", m.DiskStall, m.Healthy)
	}
}

// TestServicesThatEnd: a machine with a service that isn't ready is not healthy, although it has
// been; one whose service was stopped by somebody is. Lack of memory is shown.
func TestServicesThatEnd(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for state, want := range map[string]bool{"ready": true, "stopped": true, "stopping": true,
		"failed": false, "running": false, "starting": false} {
		m := machineToAPI(fleet.MachineView{Machine: fleet.Machine{State: fleet.MachineStarted,
			Placement: &fleet.Placement{Generation: 1}},
			Report: &fleet.VMReport{Generation: 1, Phase: fleet.PhaseHealthy,
				OOM: &fleet.OOMReport{Kills: 3, Last: at},
				Services: []fleet.ServiceReport{{Name: "a", State: "ready"},
					{Name: "b", State: state}}}})
		if m.Healthy != want {
			t.Errorf("a service is %s: healthy %v", state, m.Healthy)
		}
		if m.OutOfMemory == nil || *m.OutOfMemory != (api.OutOfMemory{Kills: 3, Last: at}) {
			t.Errorf("%+v", m.OutOfMemory)
		}
	}
}
