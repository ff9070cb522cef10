package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-platform/sluice/api"
	"github.com/sluice-platform/sluice/internal/audit"
	"github.com/sluice-platform/sluice/internal/blob/memblob"
	"github.com/sluice-platform/sluice/internal/fleet"
	"github.com/sluice-platform/sluice/internal/guestapi"
	"github.com/sluice-platform/sluice/internal/httpapi"
	"github.com/sluice-platform/sluice/internal/httpapi/httpapitest"
	"github.com/sluice-platform/sluice/internal/state/memstate"
	"github.com/sluice-platform/sluice/internal/x/errs"
)

// auditedAPI serves a fleet with a real audit log.
func auditedAPI(t *testing.T, f *httpapitest.Fleet, wrap func(httpapi.Audit) httpapi.Audit,
) *httptest.Server {
	t.Helper()
	l, err := audit.Open(audit.Config{Dir: t.TempDir(), Fleet: "f1",
		BatchEvery: 2 * time.Millisecond},
		audit.Deps{Store: memblob.New(), State: memstate.New(memstate.Config{}),
			Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return l.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	deps := httpapi.DepsOf(f, slog.New(slog.DiscardHandler))
	deps.Peer, deps.Audit = isW1, l
	if wrap != nil {
		deps.Audit = wrap(l)
	}
	a, err := httpapi.New(httpapi.Config{OperatorToken: operatorToken,
		LongPoll: 100 * time.Millisecond}, deps)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(asWorker(documented(t, a)))
	t.Cleanup(s.Close)
	return s
}

// entries returns the audit log, once it has at least n entries.
func entries(t *testing.T, s *httptest.Server, n int) []api.AuditEntry {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		status, _, body := request(t, s, "GET", "/v1/audit", operatorToken, "")
		var list api.List[api.AuditEntry]
		if err := json.Unmarshal(body, &list); err != nil || status != 200 {
			t.Fatalf("%d %s %v", status, body, err)
		}
		if len(list.Items) >= n {
			return list.Items
		}
		if time.Now().After(end) {
			t.Fatalf("only %d entries of %d: %s", len(list.Items), n, body)
		}
	}
}

// TestChangesAreAudited: who, what, on what and how it went; refused ones, too, and no others.
func TestChangesAreAudited(t *testing.T) {
	f := httpapitest.New()
	s := auditedAPI(t, f, nil)
	token := addToken(t, f, "ci", []fleet.Grant{{Network: "prod", Verb: "operate"}})
	secret := strings.Replace(goodMachine, `"image":"base"`,
		`"image":"base","env":{"PASSWORD":"hunter2"}`, 1)
	_, header, _ := request(t, s, "POST", "/v1/machines", token, secret)
	request(t, s, "POST", "/v1/machines/web-1/stop", token, "")
	request(t, s, "POST", "/v1/machines/none/stop", token, "")
	request(t, s, "POST", "/v1/workers/w1/cordon", token, `{"reason":"hunter2"}`)
	request(t, s, "POST", "/v1/drains", operatorToken, `{"workers":["w1"]}`)
	request(t, s, "PUT", "/v1/networks/prod/apps/shop/secrets/TOKEN", token,
		`{"value":"hunter2"}`)
	request(t, s, "POST", "/v1/machines/web-1/disk-key", operatorToken, "")
	request(t, s, "DELETE", "/v1/machines/web-1", token, "")
	for _, path := range []string{"/v1/machines", "/v1/machines/none"} { // of them those of nobody
		request(t, s, "GET", path, token, "")
		request(t, s, "POST", "/v1/machines/none/stop", "wrong", "")
	}
	request(t, s, "POST", "/internal/v1/workers/w1/report", workerToken, `{"worker":"w1"}`)
	want := []struct {
		subject, call, object string
		status                int
		code                  string
	}{
		{"ci", "POST /v1/machines", "machine/01000000000001", 201, ""},
		{"ci", "POST /v1/machines/{ref}/stop", "machine/01000000000001", 200, ""},
		{"ci", "POST /v1/machines/{ref}/stop", "machine/none", 404, "not_found"},
		{"ci", "POST /v1/workers/{id}/cordon", "worker/w1", 403, "denied"},
		{"operator", "POST /v1/drains", "worker/w1", 201, ""},
		{"ci", "PUT /v1/networks/{network}/apps/{app}/secrets/{name}", "secret/TOKEN", 200, ""},
		{"operator", "POST /v1/machines/{ref}/disk-key", "machine/01000000000001", 200, ""},
		{"ci", "DELETE /v1/machines/{ref}", "machine/01000000000001", 204, ""},
		{"anonymous", "POST /v1/machines/{ref}/stop", "machine/none", 401, "denied"},
		{"anonymous", "POST /v1/machines/{ref}/stop", "machine/none", 401, "denied"},
	}
	got := entries(t, s, len(want))
	if len(got) != len(want) {
		t.Fatalf("%d entries: %+v", len(got), got)
	}
	for i, e := range got {
		w := want[i]
		if e.Subject != w.subject || e.Call != w.call || e.Status != w.status || e.Code != w.code ||
			!strings.Contains(strings.Join(e.Objects, " ")+" ", w.object+" ") ||
			e.Remote == "" || e.RequestID == "" || (e.Token == "") != (w.subject != "ci") {
			t.Errorf("entry %d: %+v, want %+v", i, e, w)
		}
	}
	if got[0].RequestID != header.Get("X-Request-Id") {
		t.Errorf("request id %s, answered %s", got[0].RequestID, header.Get("X-Request-Id"))
	}
	data, err := json.Marshal(got)
	if err != nil || strings.Contains(string(data), "hunter2") ||
		strings.Contains(string(data), token) {
		t.Errorf("a secret is in the audit log: %s", data)
	}
	if status, _, body := request(t, s, "GET", "/v1/audit/verify", operatorToken, ""); status !=
		200 || strings.Contains(string(body), "break") {
		t.Errorf("%d %s", status, body)
	}
}

// TestCallersRequestIDIsTheCallers: it is kept beside the server's own, which nobody chooses.
func TestCallersRequestIDIsTheCallers(t *testing.T) {
	s := auditedAPI(t, httpapitest.New(), nil)
	for _, id := range []string{"mine-1", "mine-1", "bad id\""} {
		req, err := http.NewRequestWithContext(t.Context(), "POST", s.URL+"/v1/workers/w1/cordon",
			nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+operatorToken)
		req.Header.Set("X-Request-Id", id)
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if got := resp.Header.Get("X-Request-Id"); got == id || got == "" {
			t.Errorf("answered with request id %q", got)
		}
	}
	got := entries(t, s, 3)
	if got[0].CallersID != "mine-1" || got[1].CallersID != "mine-1" || got[2].CallersID != "" ||
		got[0].RequestID == got[1].RequestID {
		t.Errorf("%+v", got)
	}
}

// TestExecsAreAudited: the program and a hash, wherever the command comes from, and how it ended.
func TestExecsAreAudited(t *testing.T) {
	worker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		if r.URL.Query().Get("command") == "1" {
			if _, _, err := conn.Read(r.Context()); err != nil {
				return
			}
		}
		_ = conn.Write(r.Context(), websocket.MessageBinary, []byte{guestapi.FrameExit, 7})
		_ = conn.Close(websocket.StatusNormalClosure, "")
	}))
	defer worker.Close()
	f := httpapitest.New()
	f.SetWorkerURL(worker.URL)
	newMachine(t, f, "web-1")
	s := auditedAPI(t, f, nil)
	cmd := []string{"/bin/sh", "-c", "echo hunter2"}
	exec := func(query string, first []byte) {
		conn, _, err := websocket.Dial(t.Context(), s.URL+"/v1/machines/web-1/exec?"+query,
			&websocket.DialOptions{
				HTTPHeader: http.Header{"Authorization": {"Bearer " + operatorToken}}})
		if err != nil {
			t.Fatal(err)
		}
		if first != nil {
			if err := conn.Write(t.Context(), websocket.MessageBinary, first); err != nil {
				t.Fatal(err)
			}
		}
		if _, data, err := conn.Read(t.Context()); err != nil || data[1] != 7 {
			t.Errorf("%v %v", data, err)
		}
		_, _, _ = conn.Read(t.Context())
	}
	exec("cmd=%2Fbin%2Fsh&cmd=-c&cmd=echo+hunter2&env=A%3Dhunter2", nil)
	entries(t, s, 2) // its end is recorded after the caller is told of it
	message, err := json.Marshal(guestapi.ExecCommand{Cmd: cmd, Env: []string{"A=hunter2"}})
	if err != nil {
		t.Fatal(err)
	}
	exec("command=1", append([]byte{guestapi.FrameCommand}, message...))
	entries(t, s, 4)
	token := addToken(t, f, "reader", []fleet.Grant{{Network: "prod", Verb: "read"}})
	request(t, s, "GET", "/v1/machines/web-1/exec?cmd=id", token, "")
	got := entries(t, s, 5)
	for i, e := range got[:4] {
		if e.Exec == nil || e.Exec.Program != "sh" || e.Exec.SHA256 != audit.ExecOf(cmd).SHA256 ||
			e.Status != 101 || (e.Note == "exit code 7") != (i%2 == 1) {
			t.Errorf("entry %d: %+v %+v", i, e, e.Exec)
		}
	}
	if e := got[4]; e.Status != 403 || e.Code != "denied" || e.Subject != "reader" {
		t.Errorf("a refused exec: %+v", e)
	}
	data, err := json.Marshal(got)
	if err != nil || strings.Contains(string(data), "hunter2") {
		t.Errorf("a secret is in the audit log: %s", data)
	}
}

// failing is an audit log that fails when it is told to.
type failing struct {
	httpapi.Audit
	mu         sync.Mutex
	begin, end error
}

func (f *failing) set(begin, end error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begin, f.end = begin, end
}

func (f *failing) Begin(e audit.Entry) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(f.begin, f.Audit.Begin(e))
}

func (f *failing) End(e audit.Entry) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(f.end, f.Audit.End(e))
}

// TestNothingChangesUnrecorded: what can't be recorded isn't done, reads go on, and who changed
// something whose end isn't recorded is told so.
func TestNothingChangesUnrecorded(t *testing.T) {
	f := httpapitest.New()
	ran := make(chan struct{}, 1)
	worker := httptest.NewServer(http.HandlerFunc(
		func(http.ResponseWriter, *http.Request) { ran <- struct{}{} }))
	defer worker.Close()
	f.SetWorkerURL(worker.URL)
	log := &failing{}
	s := auditedAPI(t, f, func(l httpapi.Audit) httpapi.Audit { log.Audit = l; return log })
	newMachine(t, f, "web-1")
	full := errs.New(errs.Unavailable, "the audit log has no room").WithRemedy("repair the store")
	log.set(full, full)
	before := f.Mutations()
	for _, c := range [][2]string{{"POST", "/v1/machines/web-1/stop"},
		{"DELETE", "/v1/machines/web-1"}, {"POST", "/v1/machines/web-1/ports/80"},
		{"POST", "/v1/workers/w1/cordon"}} {
		status, _, body := request(t, s, c[0], c[1], operatorToken, "")
		if status != 503 || !strings.Contains(string(body), "the audit log has no room") ||
			!strings.Contains(string(body), "repair the store") {
			t.Errorf("%v: %d %s", c, status, body)
		}
	}
	_, resp, err := websocket.Dial(t.Context(), s.URL+"/v1/machines/web-1/exec?cmd=id",
		&websocket.DialOptions{
			HTTPHeader: http.Header{"Authorization": {"Bearer " + operatorToken}}})
	if err == nil || resp.StatusCode != 503 {
		t.Errorf("exec: %v %v", resp, err)
	}
	if len(ran) != 0 || f.Mutations() != before {
		t.Error("something was done")
	}
	if status, _, _ := request(t, s, "GET", "/v1/machines/web-1", operatorToken,
		""); status != 200 {
		t.Errorf("a read: %d", status)
	}
	log.set(nil, full)
	status, _, body := request(t, s, "POST", "/v1/machines/web-1/stop", operatorToken, "")
	if status != 503 || !strings.Contains(string(body), "could not be recorded") ||
		strings.Contains(string(body), `"state"`) {
		t.Errorf("an end that isn't recorded: %d %s", status, body)
	}
}
