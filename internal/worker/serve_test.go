package worker_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/worker"
)

// call sends a request to the worker's API and returns status and body.
func (r *rig) call(method, path, token string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.api+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func (r *rig) refused(method, path, token string, status int, code string) {
	r.t.Helper()
	got, body := r.call(method, path, token)
	var e api.ErrorBody
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		r.t.Fatalf("%s: %v in %q", path, err, body)
	}
	if got != status || e.Error.Code != code || e.Error.Message == "" {
		r.t.Fatalf("%s: status %d, %+v; want %d, %s", path, got, e.Error, status, code)
	}
}

func TestAPIProxiesToTheMachine(t *testing.T) {
	r := newRig(t, 0)
	r.newDisk(m1)
	r.start()
	r.feed.assign(assignment(m1, 1, fleet.WantPrepared))
	r.awaitPhase(m1, 1, fleet.PhasePrepared)
	base := "/machines/" + string(m1)
	r.refused("GET", base+"/echo/x", workerToken, 503, "unavailable")
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	r.awaitPhase(m1, 1, fleet.PhaseHealthy)

	status, body := r.call("POST", base+"/echo/a%2Fb/c?d=e%20f", workerToken)
	if want := "POST " + guestapi.PathMachine + "echo/a%2Fb/c?d=e%20f"; status != 200 ||
		body != want {
		t.Fatalf("status %d, %q, want %q", status, body, want)
	}
	r.refused("GET", base+"/echo/x", "wrong", 403, "denied")
	r.refused("GET", base+"/echo/x", "", 403, "denied")
	r.refused("GET", "/machines/010000000000bb/echo/x", workerToken, 404, "not_found")
	r.refused("GET", "/nothing", workerToken, 404, "not_found")
	if status, _ := r.call("GET", "/healthz", ""); status != 200 {
		t.Fatalf("healthz answered %d", status)
	}

	r.host.bound()[0].kill("at the worst moment")
	r.awaitPhase(m1, 1, fleet.PhaseFailed)
	r.refused("GET", base+"/echo/x", workerToken, 503, "unavailable")
}

func TestAPIProxiesWebSockets(t *testing.T) {
	r := newRig(t, 0)
	r.newDisk(m1)
	r.start()
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	r.awaitPhase(m1, 1, fleet.PhaseHealthy)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	c, resp, err := websocket.Dial(t.Context(),
		strings.Replace(r.api, "http", "ws", 1)+"/machines/"+string(m1)+"/exec",
		&websocket.DialOptions{HTTPClient: client,
			HTTPHeader: http.Header{"Authorization": {"Bearer " + workerToken}}})
	if err != nil {
		t.Fatalf("%v, %+v", err, resp)
	}
	defer c.CloseNow()
	if err := c.Write(t.Context(), websocket.MessageBinary, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	_, got, err := c.Read(t.Context())
	if err != nil || string(got) != "you said hello" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestDebugListsVMsWithTheirCounts(t *testing.T) {
	r := newRig(t, 1)
	r.newDisk(m1)
	r.start()
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	r.awaitPhase(m1, 1, fleet.PhaseHealthy)
	r.eventually("the pool is full again", func() bool { return r.feed.last().PoolReady == 1 })
	r.write(1)
	_, body := r.call("GET", "/debug/vms", workerToken)
	var list api.List[worker.DebugVM]
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		t.Fatal(err)
	}
	var pool, bound int
	for _, vm := range list.Items {
		if vm.Pool {
			pool++
		} else if vm.Report.Machine == m1 && vm.Gateway.BytesWritten >= 4096 &&
			vm.Gateway.Refused == 0 {
			bound++
		}
	}
	if pool != 1 || bound != 1 || strings.Contains(body, "token") {
		t.Fatalf("listed %s", body)
	}
}

// A change in a VM must be in a report within a few milliseconds: it is part of the pause of a
// move.
func TestChangesAreReportedAtOnce(t *testing.T) {
	r := newRig(t, 0, func(c *worker.Config) { c.Heartbeat = time.Hour })
	r.newDisk(m1)
	r.start()
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	r.awaitPhase(m1, 1, fleet.PhaseHealthy)
	began := time.Now()
	r.feed.assign(assignment(m1, 1, fleet.WantReleased))
	r.awaitPhase(m1, 1, fleet.PhaseReleased)
	took := time.Since(began)
	t.Logf("assigned → released reported: %s", took)
	if took > time.Second {
		t.Fatalf("took %s without a heartbeat", took)
	}
}
