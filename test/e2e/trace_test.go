package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/test/bench/s3proxy"
	"github.com/sluice-platform/sluice/test/fleettest"
	"github.com/sluice-platform/sluice/test/otlptest"
)

// edge is a span and the one above it, each as part/name.
type edge struct{ span, above string }

// edgesOfAMove are in the trace of every move of a machine that stops and starts well.
var edgesOfAMove = []edge{
	{"server/pause", "server/move"}, {"server/reserved", "server/move"},
	{"server/locked", "server/move"}, {"server/prepared", "server/move"},
	{"server/stopping", "server/move"}, {"server/released", "server/pause"},
	{"server/committed", "server/pause"}, {"server/attached", "server/pause"},
	{"server/started", "server/pause"}, {"server/healthy", "server/pause"},
	{"server/unlocked", "server/move"},

	{"worker/prepare", "server/move"}, {"worker/claim", "worker/prepare"},
	{"platform/disk prepare", "worker/prepare"},

	{"worker/release", "server/pause"}, {"worker/remember", "worker/release"},
	{"platform/release", "worker/release"}, {"platform/stop services", "platform/release"},
	{"platform/kill container", "platform/release"}, {"platform/unmount", "platform/release"},
	{"platform/close disk", "platform/release"}, {"blockd/disk close", "platform/close disk"},
	{"blockd/detach block device", "platform/close disk"}, {"blockd/flush", "blockd/disk close"},
	{"blockd/write map", "blockd/disk close"},

	{"worker/start", "server/pause"}, {"worker/remember", "worker/start"},
	{"worker/bind", "worker/start"}, {"platform/bring up", "worker/start"},
	{"platform/attach", "platform/bring up"}, {"platform/connect", "platform/bring up"},
	{"platform/mount", "platform/bring up"}, {"platform/grow", "platform/bring up"},
	{"platform/enter container", "platform/bring up"}, {"blockd/disk attach", "platform/attach"},
	{"blockd/block device", "platform/attach"}, {"blockd/read head", "blockd/disk attach"},
	{"blockd/swap head", "blockd/disk attach"}, {"platform/services", "worker/start"},
	{"platform/checks", "worker/start"},
}

// TestTraceOfAMove moves a machine of a fleet that exports traces to a collector. One trace has
// what server, workers, platforms, blockds and the store did, each under what it was done for, and
// the spans of those that act leave next to nothing of the pause untold. The same steps are in the
// workers' metrics.
func TestTraceOfAMove(t *testing.T) {
	var collector *otlptest.Collector
	f := fleettest.Start(t, fleettest.Options{Workers: 2, Pool: 1,
		OTLPAt: func(at netip.Addr) string {
			collector = otlptest.Start(t, s3proxy.ListenAt(t, at))
			return collector.URL
		}})
	m := f.Create("m", "green", "w1", fleettest.LedgerConfig())
	started, err := f.MigrateMachine(t.Context(), m.ID, "w2")
	if err != nil {
		t.Fatal(err)
	}
	var mv api.Move
	var trace otlptest.Trace
	f.Eventually(2*time.Minute, func() error {
		if mv, err = f.Move(t.Context(), started.ID); err != nil || mv.Step != "done" {
			return fmt.Errorf("move is at %s: %w", mv.Step, err)
		}
		moves, _ := collector.Traces()
		trace = moves[mv.ID]
		return errors.Join(missing(trace, edgesOfAMove), unstored(trace))
	})
	if moves, others := collector.Traces(); len(moves) != 1 || len(others) > 0 {
		t.Errorf("%d traces of moves, and spans of others: %v", len(moves), others)
	}
	for _, s := range trace {
		above, ok := trace.Parent(s)
		if s.Failed && s.Part != "store" || s.ParentID != "" && (!ok ||
			above.Part != "server" && (s.Start.Before(above.Start) || s.End.After(above.End))) {
			t.Errorf("%s/%s failed (%v), or is not within %s/%s", s.Part, s.Name, s.Failed,
				above.Part, above.Name)
		}
		if s.Part != "server" && s.Instance == "" || s.Part == "server" && s.Service !=
			"sluice-server" {
			t.Errorf("%s/%s was told by %s %q", s.Part, s.Name, s.Service, s.Instance)
		}
	}
	checkPause(t, trace, mv)
	wantMetric(t, f, "w1", `sluice_worker_release_step_seconds_count{step="close"} 1`)
	wantMetric(t, f, "w1", `sluice_worker_start_step_seconds_count{step="service"} 1`)
	for _, step := range []string{"boot", "bind", "attach", "mount", "container", "service",
		"check"} {
		n := 1
		if step == "boot" {
			n = 0 // its VM was claimed before the machine was stopped
		}
		wantMetric(t, f, "w2",
			fmt.Sprintf(`sluice_worker_start_step_seconds_count{step=%q} %d`, step, n))
	}
}

// missing names the first edge that a trace doesn't have.
func missing(trace otlptest.Trace, edges []edge) error {
	has := map[edge]bool{}
	for _, s := range trace {
		if above, ok := trace.Parent(s); ok {
			has[edge{s.Part + "/" + s.Name, above.Part + "/" + above.Name}] = true
		}
	}
	for _, e := range edges {
		if !has[e] {
			return fmt.Errorf("the trace lacks %s under %s; it has %v", e.span, e.above, has)
		}
	}
	return nil
}

// unstored names what should have asked the store to swap the disk's head, and isn't above such a
// request. Under which of its parts it is depends on how well a busy host tells the time.
func unstored(trace otlptest.Trace) error {
	above := map[string]bool{}
	for _, s := range trace.Find("store", "put_if_match") {
		for up, ok := trace.Parent(s); ok; up, ok = trace.Parent(up) {
			above[up.Part+"/"+up.Name] = true
		}
	}
	if !above["worker/release"] || !above["worker/start"] {
		return fmt.Errorf("heads were swapped under %v alone", above)
	}
	return nil
}

// checkPause holds the trace's pause against the one that the server reports. The server's own
// spans say only which step was waited for: they are not counted.
func checkPause(t *testing.T, trace otlptest.Trace, mv api.Move) {
	t.Helper()
	pause := trace.Find("server", "pause")
	if len(pause) != 1 {
		t.Fatalf("%d pauses", len(pause))
	}
	reported := time.Duration(mv.PauseMS * float64(time.Millisecond))
	if d := pause[0].Took() - reported; d < -time.Millisecond || d > time.Millisecond {
		t.Errorf("the pause took %v by its span, and %v by the server", pause[0].Took(), reported)
	}
	covered := trace.Covered(pause[0], func(s otlptest.Span) bool { return s.Part != "server" })
	share := float64(covered) / float64(reported)
	t.Logf("spans of workers, platforms, blockds and the store cover %.1f %% of a pause of %v",
		100*share, reported)
	for _, s := range trace {
		t.Logf("%8.1f ms %8.1f ms  %s/%s", ms(s.Start.Sub(pause[0].Start)), ms(s.Took()), s.Part,
			s.Name)
	}
	if share < 0.9 {
		t.Errorf("the spans cover %.1f %% of the pause", 100*share)
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// wantMetric fails the test unless a worker's metrics have a line.
func wantMetric(t *testing.T, f *fleettest.Fleet, worker, line string) {
	t.Helper()
	body, err := f.HostRequest(t.Context(), worker, http.MethodGet, "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(body), line+"\n") {
		t.Errorf("%s doesn't have %s", worker, line)
	}
}
