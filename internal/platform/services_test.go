package platform_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

func (v *testVM) service(name string) fleet.ServiceReport {
	v.t.Helper()
	for _, s := range v.health().Services {
		if s.Name == name {
			return s
		}
	}
	v.t.Fatalf("no service %s", name)
	return fleet.ServiceReport{}
}

func (v *testVM) awaitService(name, what string,
	cond func(fleet.ServiceReport) bool) fleet.ServiceReport {
	v.t.Helper()
	var found fleet.ServiceReport
	v.await("service "+name+": "+what, func(h guestapi.Health) bool {
		i := slices.IndexFunc(h.Services,
			func(s fleet.ServiceReport) bool { return s.Name == name && cond(s) })
		if i >= 0 {
			found = h.Services[i]
		}
		return i >= 0
	})
	return found
}

func (v *testVM) get(path string) (string, error) {
	ctx, cancel := context.WithTimeout(v.t.Context(), 2*time.Minute)
	defer cancel()
	var body string
	err := v.call(ctx, http.MethodGet, guestapi.PathMachine+path, nil, &body)
	return body, err
}

func (v *testVM) post(path string) error {
	return v.call(v.t.Context(), http.MethodPost, guestapi.PathMachine+path, nil, nil)
}

// loop is a service that says what happens to it.
func loop(name string, needs ...string) fleet.Service {
	script := fmt.Sprintf(`echo start %[1]s >> /data/order; trap 'echo stop %[1]s >> /data/order; exit' TERM; echo hello from %[1]s; echo oops >&2
		while :; do sleep 0.02; done`, name)
	return fleet.Service{Name: name, Cmd: []string{"sh", "-c", script}, Needs: needs}
}

func TestServices(t *testing.T) {
	id := newDisk(t)
	flaky := fleet.Service{Name: "flaky",
		Cmd: []string{"sh", "-c", "echo run >> /data/runs; exit 3"}}
	web := webService()
	web.Needs = []string{"b"}
	web.Check = &fleet.Check{Kind: fleet.CheckHTTP, Path: "/page"}
	checked := loop("checked")
	checked.Check = &fleet.Check{Kind: fleet.CheckExec, Cmd: []string{"test", "-e", "/data/go"}}
	missing := fleet.Service{Name: "missing", Cmd: []string{"nonesuch", "-x"}}
	b := bindOf(id, 1, web, loop("b", "a"), loop("a"), flaky, checked, missing)
	b.Config.Stop.Timeout = time.Minute // on a busy host too it says that it stops
	v := startVM(t)
	v.bind(b)
	v.awaitService("b", "ready", func(s fleet.ServiceReport) bool { return s.State == "ready" })
	if h := v.health(); h.State == guestapi.StateHealthy {
		t.Error("healthy before the checks pass")
	}
	v.sh("echo page > /data/page; touch /data/go")
	v.awaitService("web", "ready", func(s fleet.ServiceReport) bool { return s.State == "ready" })
	v.awaitService("checked", "ready",
		func(s fleet.ServiceReport) bool { return s.State == "ready" })
	t.Run("RestartWithBackoff", func(t *testing.T) {
		s := v.awaitService("flaky", "restarted",
			func(s fleet.ServiceReport) bool { return s.Restarts >= 3 })
		if !strings.Contains(s.Error, "exit code 3") {
			t.Errorf("error %q", s.Error)
		}
		if runs := strings.Count(v.sh("cat /data/runs"), "run"); runs > 6 {
			t.Errorf("%d runs: no backoff", runs)
		}
	})
	t.Run("StickyStop", func(t *testing.T) { testStickyStop(t, v) })
	t.Run("KilledIsRestarted", func(t *testing.T) {
		before := v.service("a")
		v.sh(fmt.Sprintf("kill -KILL %d", before.PID))
		v.awaitService("a", "back", func(s fleet.ServiceReport) bool {
			return s.State == "ready" &&
				s.PID != before.PID && s.Restarts == 1
		})
	})
	t.Run("Logs", func(t *testing.T) { testLogs(t, v) })
	t.Run("Ports", func(t *testing.T) { testPorts(t, v) })
	// flaky never stays up, so the machine as a whole isn't healthy until it is stopped.
	for _, name := range []string{"flaky", "missing"} {
		if err := v.post("services/" + name + "/stop"); err != nil {
			t.Fatal(err)
		}
	}
	v.await("healthy", inState(guestapi.StateHealthy))
	v.sh("rm /data/order")
	h := v.release(b)
	logSteps(t, "release", h)
	fsck(t, id)
	v2 := startVM(t)
	b2 := bindOf(id, 2)
	v2.bind(b2)
	v2.await("healthy", inState(guestapi.StateHealthy))
	if got := v2.sh("cat /data/order"); !strings.Contains(got, "stop b\nstop a\n") {
		t.Errorf("order of stops: %q", got)
	}
	v2.release(b2)
}

func testStickyStop(t *testing.T, v *testVM) {
	if err := v.post("services/checked/stop"); err != nil {
		t.Fatal(err)
	}
	v.awaitService("checked", "stopped",
		func(s fleet.ServiceReport) bool { return s.State == "stopped" })
	time.Sleep(300 * time.Millisecond) // longer than the first restart takes
	if s := v.service("checked"); s.State != "stopped" || s.Restarts != 0 {
		t.Errorf("a stopped service is %+v", s)
	}
	if err := v.post("services/checked/start"); err != nil {
		t.Fatal(err)
	}
	s := v.awaitService("checked", "started",
		func(s fleet.ServiceReport) bool { return s.State == "ready" })
	if err := v.post("services/checked/restart"); err != nil {
		t.Fatal(err)
	}
	v.awaitService("checked", "restarted",
		func(n fleet.ServiceReport) bool { return n.State == "ready" && n.PID != s.PID })
	if err := v.post("services/nobody/stop"); !errs.Is(err, errs.NotFound) {
		t.Errorf("stop of an unknown service: %v", err)
	}
}

func testLogs(t *testing.T, v *testVM) {
	text, err := v.get("logs?service=b&lines=10")
	if err != nil || !strings.Contains(text, " b stdout hello from b\n") ||
		!strings.Contains(text, " b stderr oops\n") {
		t.Errorf("log of b: %q %v", text, err)
	}
	if text, err = v.get("logs?lines=-1"); err != nil ||
		!strings.Contains(text, " a stdout hello") || !strings.Contains(text, " b stdout hello") {
		t.Errorf("log of all: %q %v", text, err)
	}
	v.awaitService("missing", "tried twice",
		func(s fleet.ServiceReport) bool { return s.Restarts >= 2 })
	if text, err = v.get("logs?service=missing"); err != nil ||
		!strings.Contains(text, " missing sluice can't be started: ") ||
		!strings.Contains(text, "nonesuch: command not found\n") {
		t.Errorf("log of a service without a command: %q %v", text, err)
	}
	if _, err := v.get("logs?service=nobody"); !errs.Is(err, errs.NotFound) {
		t.Errorf("log of nobody: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet,
		"http://vm"+guestapi.PathMachine+"logs?service=flaky&lines=0&follow=1", nil)
	req.Header.Set("Authorization", "Bearer "+v.token)
	resp, err := v.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get(guestapi.HeaderInstance); got == "" ||
		got != string(v.health().Instance) {
		t.Errorf("log of instance %q", got)
	}
	// whatever: must not break the log
	v.sh("echo from outside > /proc/$(cat /proc/sys/kernel/ns_last_pid)/fd/1 || true")
	if err := v.post("services/a/restart"); err != nil {
		t.Fatal(err)
	}
	if text, err = v.get("logs?service=a"); err != nil || strings.Count(text, "hello") < 1 {
		t.Errorf("log after restarts: %q %v", text, err)
	}
}

func testPorts(t *testing.T, v *testVM) {
	if text, err := v.get("ports/8080/page"); err != nil || text != "page\n" {
		t.Errorf("through the proxy: %q %v", text, err)
	}
	if _, err := v.get("ports/9999/"); !errs.Is(err, errs.Unavailable) {
		t.Errorf("nobody listens: %v", err)
	}
	if _, err := v.get("ports/99999/"); !errs.Is(err, errs.Invalid) {
		t.Errorf("no port: %v", err)
	}
	testUpgrade(t, v)
	// A service that listens on the machine's loopback alone is reached too.
	conn := v.dialExec(shell("httpd -f -p 127.0.0.1:8081 -h /data"))
	defer conn.CloseNow()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		text, err := v.get("ports/8081/page")
		if err == nil && text == "page\n" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("loopback service: %q %v", text, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestLogRotationAndFollow(t *testing.T) {
	id := newDisk(t)
	noisy := fleet.Service{Name: "noisy", Cmd: []string{"sh", "-c",
		"seq 1 400000; echo last; while :; do sleep 0.1; echo tick; done"}}
	b := bindOf(id, 1, noisy)
	v := startVM(t)
	v.bind(b)
	v.await("healthy", inState(guestapi.StateHealthy))
	deadline := time.Now().Add(2 * time.Minute)
	for {
		text, err := v.get("logs?service=noisy&lines=2000")
		if err == nil && strings.Contains(text, " 400000\n") &&
			strings.Contains(text, "stdout last\n") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the end of the output isn't in the log: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	all, err := v.get("logs?lines=-1")
	if err != nil || len(all) > 2<<20 {
		t.Errorf("log takes %d bytes, %v", len(all), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet,
		"http://vm"+guestapi.PathMachine+"logs?lines=1&follow=1", nil)
	req.Header.Set("Authorization", "Bearer "+v.token)
	resp, err := v.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for range 4 {
		if !lines.Scan() || !strings.Contains(lines.Text(), " noisy stdout ") {
			t.Fatalf("followed %q, %v", lines.Text(), lines.Err())
		}
	}
	v.release(b)
	if _, err := io.Copy(io.Discard, resp.Body); err != nil && ctx.Err() != nil {
		t.Errorf("following doesn't end with the machine: %v", err)
	}
}

// testUpgrade switches protocols through the proxy, as a WebSocket does, and speaks both ways.
func testUpgrade(t *testing.T, v *testVM) {
	server := v.dialExec(
		shell(
			`printf 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\nhello' | nc -l -p 8082`))
	defer server.CloseNow()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		req := "GET " + guestapi.PathMachine +
			"ports/8082/ws HTTP/1.1\r\nHost: vm\r\nAuthorization: Bearer " + v.token +
			"\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n"
		conn, err := v.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
		fmt.Fprint(conn, req)
		answer, _ := io.ReadAll(conn)
		conn.Close()
		if strings.HasPrefix(string(answer), "HTTP/1.1 101 ") &&
			strings.HasSuffix(string(answer), "hello") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("upgrade through the proxy: %q", answer)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
