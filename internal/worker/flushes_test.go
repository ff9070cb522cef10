package worker_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/fleet"
)

// scraped returns the value of a sample, "" if it isn't there.
func (r *rig) scraped(sample string) string {
	r.t.Helper()
	status, body := r.call("GET", "/metrics", r.server())
	if status != 200 {
		r.t.Fatalf("metrics answered %d: %s", status, body)
	}
	_, rest, _ := strings.Cut(body, "\n"+sample+" ")
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

// TestFlushesOfAWorkerNeverGoBack: what disks have counted stays in the worker's sum when their VM
// goes, also what nobody had asked for before, and another incarnation adds to it. A worker that is
// started again counts only what is new. Of one machine it tells what its disk does now.
func TestFlushesOfAWorkerNeverGoBack(t *testing.T) {
	const flushes = "sluice_worker_disk_flush_duration_seconds_count"
	const stored = `sluice_worker_disk_flush_wait_seconds_count{wait="store"}`
	own := fmt.Sprintf("sluice_disk_flushes_total{machine=%q}", m1)
	r := newRig(t, 1)
	r.newDisk(m1)
	r.start()
	is := func(when string, want map[string]string) {
		t.Helper()
		for sample, value := range want {
			if got := r.scraped(sample); got != value {
				t.Errorf("%s: %s is %q, want %q", when, sample, got, value)
			}
		}
	}
	is("before anything", map[string]string{flushes: "0", stored: "0", own: ""})
	begin := func(g fleet.Generation) {
		r.feed.assign(assignment(m1, g, fleet.WantRunning))
		r.awaitPhase(m1, g, fleet.PhaseHealthy)
	}
	begin(1)
	r.write(1)
	r.write(2)
	is("after two flushes", map[string]string{flushes: "2", stored: "2", own: "2"})
	r.write(3) // which nobody scrapes until the VM is gone
	r.feed.assign(assignment(m1, 1, fleet.WantReleased))
	r.awaitPhase(m1, 1, fleet.PhaseReleased)
	r.awaitGone(m1)
	is("when the VM is gone", map[string]string{flushes: "3", stored: "3", own: ""})
	begin(2)
	r.write(4)
	is("of another VM", map[string]string{flushes: "4", stored: "4", own: "1"})
	r.restart()
	r.eventually("the machine is known again", func() bool { return r.scraped(own) == "1" })
	is("of a worker that has counted nothing yet", map[string]string{flushes: "0", stored: "0"})
	r.write(5)
	is("of a worker that was started again", map[string]string{flushes: "1", stored: "1", own: "2"})
}
