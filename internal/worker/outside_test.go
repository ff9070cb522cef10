package worker_test

import (
	"strings"
	"testing"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/worker"
)

const scrapeToken = "only-for-metrics"

// TestReadyOnceAssignmentsAreKnown: a worker lives at once, and is ready once it knows what to do.
func TestReadyOnceAssignmentsAreKnown(t *testing.T) {
	r := newRig(t, 0)
	r.newDisk(m1)
	r.start()
	if status, _ := r.call("GET", "/healthz", caller{}); status != 200 {
		t.Fatalf("healthz answered %d", status)
	}
	r.eventually("it has joined", func() bool {
		status, body := r.call("GET", "/readyz", caller{})
		return status == 503 && !strings.Contains(body, "joined") &&
			strings.Contains(body, "assignments")
	})
	r.feed.assign(assignment(m1, 1, fleet.WantPrepared))
	r.eventually("it is ready", func() bool {
		status, _ := r.call("GET", "/readyz",
			caller{})
		return status == 200
	})
}

// TestMetricsOfAWorker: what happened is counted, and only who may scrape sees it.
func TestMetricsOfAWorker(t *testing.T) {
	r := newRig(t, 1, func(c *worker.Config) { c.ScrapeToken = scrapeToken })
	r.newDisk(m1)
	r.start()
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	r.awaitPhase(m1, 1, fleet.PhaseHealthy)
	r.eventually("the pool is full again", func() bool { return r.feed.last().PoolReady == 1 })
	r.write(1)
	r.refused("GET", "/metrics", caller{}, 403, "denied")
	r.refused("GET", "/metrics", caller{token: "wrong"}, 403, "denied")
	r.refused("GET", "/debug/vms", caller{token: scrapeToken}, 403, "denied")
	r.refused("GET", "/machines/"+string(m1)+"/echo/x", caller{token: scrapeToken}, 403, "denied")
	for _, who := range []caller{r.server(), {token: scrapeToken}} {
		status, body := r.call("GET", "/metrics", who)
		if status != 200 {
			t.Fatalf("metrics answered %d: %s", status, body)
		}
		for _, line := range []string{
			`sluice_build_info{go_version="`, `sluice_pool_vms{state="ready"} 1`,
			`sluice_worker_vms{phase="healthy"} 1`,
			`sluice_machine_healthy{machine="` + string(m1) + `"} 1`,
			`sluice_pool_boot_duration_seconds_count 2`,
			`sluice_gateway_request_duration_seconds_count{operation="get"} `,
			"process_resident_memory_bytes ", "go_goroutines ",
		} {
			if !strings.Contains(body, "\n"+line) {
				t.Errorf("no line begins with %s in\n%s", line, body)
			}
		}
		if strings.Contains(body,
			`sluice_gateway_requests_total{operation="put_if_absent",result="ok"} 0`) {
			t.Errorf("no write was counted in\n%s", body)
		}
	}
}
