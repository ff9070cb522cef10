package httpapi_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/httpapi/httpapitest"
)

// allow sets a limit for network prod.
func allow(t *testing.T, f *httpapitest.Fleet, what fleet.Quantity, n int64) {
	t.Helper()
	if _, err := f.SetQuota(t.Context(), fleet.QuotaScope{Network: "prod"},
		map[fleet.Quantity]*int64{what: &n}); err != nil {
		t.Fatal(err)
	}
}

// session opens a command on a connection of its own, which is returned too.
func session(t *testing.T, url, token string) (net.Conn, *http.Response, error) {
	t.Helper()
	var conn net.Conn
	transport := &http.Transport{DialContext: func(ctx context.Context, network,
		addr string) (net.Conn, error) {
		var err error
		conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return conn, err
	}}
	//nolint:bodyclose // Dial closes the body, or hands over what it has read of it
	_, resp, err := websocket.Dial(t.Context(), url+"/v1/machines/web-1/exec?cmd=sleep",
		&websocket.DialOptions{HTTPClient: &http.Client{Transport: transport},
			HTTPHeader: http.Header{"Authorization": {"Bearer " + token}}})
	return conn, resp, err
}

// TestANetworkHasNoMoreCommandsOpenThanItMay: one counts until its client is gone, however it went.
// The operator, who has to get in whatever a tenant does, is never refused.
func TestANetworkHasNoMoreCommandsOpenThanItMay(t *testing.T) {
	f, s, _ := proxied(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err == nil {
			_, _, _ = c.Read(context.WithoutCancel(r.Context())) // until the caller is gone
			_ = c.CloseNow()
		}
	})
	allow(t, f, fleet.QuotaExecs, 1)
	token := addToken(t, f, "user", []fleet.Grant{{Network: "prod", Verb: "use"}})
	first, _, err := session(t, s.URL, token)
	if err != nil {
		t.Fatal(err)
	}
	used := func() int64 {
		var q api.Quota
		_, _, body := request(t, s, "GET", "/v1/quotas/network~prod", operatorToken, "")
		if err := json.Unmarshal(body, &q); err != nil {
			t.Fatal(err)
		}
		return q.Used["execs"]
	}
	if n := used(); n != 1 {
		t.Errorf("%d commands are shown to be open, not 1", n)
	}
	_, resp, err := session(t, s.URL, token)
	if err == nil || resp == nil || resp.StatusCode != http.StatusInsufficientStorage {
		t.Fatalf("beyond the quota: %v, %v", resp, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(body), `"exhausted"`) ||
		!strings.Contains(string(body), "network prod has a quota of 1 open command") ||
		!strings.Contains(string(body), `"remedy"`) {
		t.Errorf("it is told %s, %v", body, err)
	}
	if op, _, err := session(t, s.URL, operatorToken); err != nil {
		t.Errorf("the operator is refused: %v", err)
	} else {
		_ = op.Close()
	}
	_ = first.Close() // as when the client is killed
	for used() != 0 {
		if t.Context().Err() != nil {
			t.Fatal("a command counts on")
		}
		time.Sleep(time.Millisecond)
	}
	again, _, err := session(t, s.URL, token)
	if err != nil {
		t.Fatalf("once there is room: %v", err)
	}
	_ = again.Close()
}

// TestStreamsOfLogsAtOnceGetWhatTheQuotaHas: of many at once, none too many reaches a worker.
func TestStreamsOfLogsAtOnceGetWhatTheQuotaHas(t *testing.T) {
	const places, callers = 3, 12
	var mu sync.Mutex
	at, end := 0, make(chan struct{})
	f, s, _ := proxied(t, func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		at++
		mu.Unlock()
		_ = http.NewResponseController(w).Flush()
		<-end
	})
	allow(t, f, fleet.QuotaLogs, places)
	token := addToken(t, f, "user", []fleet.Grant{{Network: "prod", Verb: "use"}})
	var over int
	refused := make(chan struct{})
	var g errgroup.Group
	for range callers {
		g.Go(func() error {
			status, _, _ := request(t, s, "GET", "/v1/machines/web-1/logs?follow=1", token, "")
			mu.Lock()
			defer mu.Unlock()
			if status == http.StatusInsufficientStorage {
				if over++; over == callers-places {
					close(refused)
				}
			}
			return nil
		})
	}
	select {
	case <-refused:
	case <-time.After(time.Minute):
		t.Error("not as many are refused as are too many")
	}
	close(end)
	_ = g.Wait()
	if at != places {
		t.Errorf("%d reached the worker, not %d", at, places)
	}
}

// TestQuotasByTheAPI: limits that aren't named stay, null takes one away, and bad ones change
// nothing.
func TestQuotasByTheAPI(t *testing.T) {
	f := httpapitest.New()
	s := serve(t, f)
	newMachine(t, f, "web-1")
	set := func(id, body string, want int) api.Quota {
		t.Helper()
		status, _, answer := request(t, s, "PATCH", "/v1/quotas/"+id, operatorToken, body)
		var q api.Quota
		if err := json.Unmarshal(answer, &q); err != nil || status != want {
			t.Fatalf("%s %s: %d %s", id, body, status, answer)
		}
		return q
	}
	set("default", `{"limits":{"machines":5,"execs":2}}`, http.StatusOK)
	q := set("network~prod", `{"limits":{"cpu_millis":2500,"machines":7}}`, http.StatusOK)
	if q.ID != "network/prod" || q.Limits["machines"] != 7 || q.Limits["execs"] != 2 ||
		q.Own["execs"] != 0 || q.Used["machines"] != 1 || q.Used["disk_bytes"] != 1<<30 {
		t.Errorf("%+v", q)
	}
	q = set("network~prod", `{"limits":{"machines":null}}`, http.StatusOK)
	if q.Limits["machines"] != 5 || q.Limits["cpu_millis"] != 2500 {
		t.Errorf("%+v", q)
	}
	before := f.Mutations()
	for _, bad := range []struct {
		id, body string
		status   int
	}{{"network~prod", `{"limits":{"wishes":1}}`, 400},
		{"network~prod", `{"limits":{"cpu":1}}`, 400},
		{"network~prod", `{"limits":{"machines":-2}}`, 400},
		{"fleet", `{"limits":{"machines":1}}`, 400},
		{"network~Prod", `{"limits":{}}`, 400}, {"nonsense", `{"limits":{}}`, 404}} {
		set(bad.id, bad.body, bad.status)
	}
	if f.Mutations() != before {
		t.Error("what is refused changes something")
	}
}
