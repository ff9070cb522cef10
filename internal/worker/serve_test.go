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
	"github.com/sluice-platform/sluice/internal/identity"
	"github.com/sluice-platform/sluice/internal/identity/identitytest"
	"github.com/sluice-platform/sluice/internal/worker"
)

// caller is who calls the worker's API.
type caller struct {
	own   identity.Own // nil: nobody with a certificate
	token string
}

// server is the fleet's server.
func (r *rig) server() caller { return caller{own: r.ca.Self()} }

// client returns a client of a caller that takes the worker w1 alone.
func (r *rig) client(c caller) *http.Client {
	return identitytest.Client(r.t, c.own, identity.IsWorker("w1"))
}

// call sends a request to the worker's API and returns status and body.
func (r *rig) call(method, path string, who caller) (int, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.api+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+who.token)
	client := r.client(who)
	defer client.CloseIdleConnections()
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

func (r *rig) refused(method, path string, who caller, status int, code string) {
	r.t.Helper()
	got, body := r.call(method, path, who)
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
	r.refused("GET", base+"/echo/x", r.server(), 503, "unavailable")
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	r.awaitPhase(m1, 1, fleet.PhaseHealthy)

	status, body := r.call("POST", base+"/echo/a%2Fb/c?d=e%20f", r.server())
	if want := "POST " + guestapi.PathMachine + "echo/a%2Fb/c?d=e%20f"; status != 200 ||
		body != want {
		t.Fatalf("status %d, %q, want %q", status, body, want)
	}
	// Nobody but the server of this fleet: no other worker, no other fleet, no token.
	for _, other := range []caller{{}, {token: "worker-token"},
		{own: identitytest.Worker(t, r.ca, "w2", 1)},
		{own: identitytest.Worker(t, r.ca, "w1", 1)}} {
		r.refused("GET", base+"/echo/x", other, 403, "denied")
	}
	r.refusedForeign(base + "/echo/x")
	r.refused("GET", "/machines/010000000000bb/echo/x", r.server(), 404, "not_found")
	r.refused("GET", "/nothing", r.server(), 404, "not_found")
	if status, _ := r.call("GET", "/healthz", caller{}); status != 200 {
		t.Fatalf("healthz answered %d", status)
	}

	r.host.bound()[0].kill("at the worst moment")
	r.awaitPhase(m1, 1, fleet.PhaseFailed)
	r.refused("GET", base+"/echo/x", r.server(), 503, "unavailable")
}

// refusedForeign calls as the server of another fleet would, that takes everybody.
func (r *rig) refusedForeign(path string) {
	r.t.Helper()
	cfg := identity.ClientConfig(identitytest.Authority(r.t, nil).Self(), identity.IsServer)
	cfg.VerifyConnection = nil
	transport := &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Get(r.api + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 403 ||
		!strings.Contains(string(body), "not of the authority") {
		r.t.Errorf("another fleet's server got %d: %s", resp.StatusCode, body)
	}
}

// TestACallForAWorkerThatHasJustStarted: a machine that runs is called while the next worker still
// looks for it.
func TestACallForAWorkerThatHasJustStarted(t *testing.T) {
	r := newRig(t, 0)
	r.newDisk(m1)
	r.start()
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	r.awaitPhase(m1, 1, fleet.PhaseHealthy)
	r.stop()
	look := make(chan struct{})
	r.host.beforeAdopt(look)
	r.start()
	time.AfterFunc(100*time.Millisecond, func() { close(look) })
	status, body := r.call("POST", "/machines/"+string(m1)+"/echo/a", r.server())
	if status != http.StatusOK {
		t.Errorf("status %d, %s", status, body)
	}
	r.refused("GET", "/machines/0123456789abcd/echo/x", r.server(), 404, "not_found")
}

func TestAPIProxiesWebSockets(t *testing.T) {
	r := newRig(t, 0)
	r.newDisk(m1)
	r.start()
	r.feed.assign(assignment(m1, 1, fleet.WantRunning))
	r.awaitPhase(m1, 1, fleet.PhaseHealthy)
	client := r.client(r.server())
	defer client.CloseIdleConnections()
	c, resp, err := websocket.Dial(t.Context(),
		strings.Replace(r.api, "http", "ws", 1)+"/machines/"+string(m1)+"/exec",
		&websocket.DialOptions{HTTPClient: client})
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
	_, body := r.call("GET", "/debug/vms", r.server())
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
