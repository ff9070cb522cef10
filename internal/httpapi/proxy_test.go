package httpapi_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/httpapi/httpapitest"
)

// proxied sets up a fleet with one machine whose worker is handled by h.
func proxied(t *testing.T,
	h http.HandlerFunc) (*httpapitest.Fleet, *httptest.Server, fleet.MachineID) {
	t.Helper()
	worker := httptest.NewServer(h)
	t.Cleanup(worker.Close)
	f := httpapitest.New()
	f.SetWorkerURL(worker.URL)
	id := newMachine(t, f, "web-1")
	return f, serve(t, f), id
}

func TestProxyPassesPathQueryAndBody(t *testing.T) {
	type seen struct{ Method, URI, Auth, Body, Header string }
	var got seen
	_, s, id := proxied(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = seen{r.Method, r.RequestURI, r.Header.Get("Authorization"), string(body),
			r.Header.Get("X-Mine")}
		w.Header().Set("X-Theirs", "yes")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, `{"kind":"not_found","message":"of the user's own program"}`)
	})
	for _, c := range []struct{ method, path, want string }{
		{"PATCH", "/ports/8080/a%2Fb/c?x=1&y=%20", "/ports/8080/a%2Fb/c?x=1&y=%20"},
		{"POST", "/ports/8080/", "/ports/8080/"},
		{"GET", "/ports/8080/%C3%A9/..%2Fx", "/ports/8080/%C3%A9/..%2Fx"},
	} {
		status, header, body := request(t, s, c.method, "/v1/machines/shop~web-1"+c.path,
			operatorToken, "payload")
		want := seen{c.method, "/machines/" + string(id) + c.want, "",
			"payload", ""}
		if got != want {
			t.Errorf("%s %s came as %+v, want %+v", c.method, c.path, got, want)
		}
		if status != http.StatusTeapot || header.Get("X-Theirs") != "yes" ||
			!strings.Contains(string(body), "of the user's own program") {
			t.Errorf("%s %s: answer %d %s", c.method, c.path, status, body)
		}
	}
}

func TestProxyGivesPlatformErrorsOurForm(t *testing.T) {
	_, s, _ := proxied(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if strings.Contains(r.URL.Path, "/ports/9999") {
			w.Header().Set(guestapi.HeaderError, "1")
		}
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w,
			`{"kind":"not_found","message":"no service \"x\"","remedy":"look"}`)
	})
	for path, translated := range map[string]bool{"services/x/stop": true, "ports/9999/": true,
		"ports/8080/": false} {
		status, _, body := request(t, s, "POST", "/v1/machines/web-1/"+path, operatorToken, "")
		var e api.ErrorBody
		err := json.Unmarshal(body, &e)
		if got := e.Error.Code == "not_found" && e.Error.Message == `no service "x"` &&
			e.Error.Remedy == "look"; err != nil || status != 404 || got != translated {
			t.Errorf("%s: %d %s: %v", path, status, body, err)
		}
	}
}

func TestProxyOfAMovingMachineAndADeadWorker(t *testing.T) {
	f, s, id := proxied(t, func(http.ResponseWriter, *http.Request) {})
	f.Update(func(tx *httpapitest.Tx) { tx.Machines[id].Machine.State = fleet.MachineMoving })
	check := func(want string) {
		t.Helper()
		status, header, body := request(t, s, "GET", "/v1/machines/web-1/logs", operatorToken, "")
		var e api.ErrorBody
		if err := json.Unmarshal(body, &e); err != nil {
			t.Fatal(err)
		}
		if status != 503 || header.Get("Retry-After") == "" || e.Error.Code != "unavailable" ||
			!strings.Contains(e.Error.Message, want) || e.Error.Remedy == "" {
			t.Fatalf("%d %v %s", status, header, body)
		}
	}
	check("moving")
	f.Update(func(tx *httpapitest.Tx) { tx.Machines[id].Machine.State = fleet.MachineStarted })
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	f.SetWorkerURL(dead.URL)
	check("can't be reached")
}

// TestHeaderOfLogs: what the platform says of a log's instance reaches clients under the name that
// they know.
func TestHeaderOfLogs(t *testing.T) {
	_, s, _ := proxied(t, func(w http.ResponseWriter,
		_ *http.Request) {
		w.Header().Set(guestapi.HeaderInstance, "A")
	})
	if _, header, _ := request(t, s, "GET", "/v1/machines/web-1/logs", operatorToken,
		""); header.Get(api.HeaderInstance) != "A" {
		t.Errorf("%v", header)
	}
}

// TestProxyStreams: each line arrives before the next is written.
func TestProxyStreams(t *testing.T) {
	next := make(chan struct{})
	_, s, _ := proxied(t, func(w http.ResponseWriter, r *http.Request) {
		for i := range 3 {
			fmt.Fprintf(w, "line %d\n", i)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
		}
	})
	req, _ := http.NewRequest("GET", s.URL+"/v1/machines/web-1/logs?follow=1", nil)
	req.Header.Set("Authorization", "Bearer "+operatorToken)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for i := range 3 {
		line, err := lines.ReadString('\n')
		if err != nil || line != fmt.Sprintf("line %d\n", i) {
			t.Fatalf("line %d: %q %v", i, line, err)
		}
		next <- struct{}{}
	}
}

// TestProxyUpgrades passes a connection that is no HTTP any more, both ways.
func TestProxyUpgrades(t *testing.T) {
	_, s, _ := proxied(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", r.Header.Get("Upgrade"))
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.Copy(conn, rw)
	})
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn,
		"GET /v1/machines/web-1/ports/80 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", operatorToken)
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v %v", resp, err)
	}
	for _, word := range []string{"hello\n", "again\n"} {
		if _, err := io.WriteString(conn, word); err != nil {
			t.Fatal(err)
		}
		if got, err := in.ReadString('\n'); err != nil || got != word {
			t.Fatalf("%q %v", got, err)
		}
	}
}
